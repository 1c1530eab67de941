"""How far a long reading has come: one line on stderr, in a terminal only, gone when it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from overnight.domain.printable import shown

EVERY_S = 0.25
FIRST_AFTER_S = 0.5


@contextmanager
def shown_for(source: Path) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that is told (bytes done, bytes in all), or None where nobody would see it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    started = time.monotonic()
    last = started + FIRST_AFTER_S - EVERY_S

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY_S:
            return
        last = now
        rate = done / 1e6 / max(now - started, 1e-6)
        share = 100 * done // total if total else 100
        sys.stderr.write(f"\r\x1b[K{shown(source.name)[:60]}  {share} %  {done / 1e6:.0f} MB  {rate:.0f} MB/s")
        sys.stderr.flush()

    try:
        yield tell
    finally:
        if last > started + FIRST_AFTER_S - EVERY_S:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
