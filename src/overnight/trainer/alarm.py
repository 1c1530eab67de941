"""An alarm for work that may hang: it rings inside the call that hangs, as far as that call lets the interpreter run.

It counts time as the watching loop does (domain/vitals.py): not that in which the process was stopped or not let run.
So a frozen or crowded machine ends nothing.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from overnight.domain import vitals
from overnight.domain.health import BUSY_SHARE
from overnight.domain.vitals import Stillness, Vitals
from overnight.launchers.processes import identify
from overnight.launchers.vitals import look

LONGEST_TICK_S = 1.0
TICKS = 20
"""At least so many in the shortest limit."""


class TimeIsUp(Exception):
    """The work took longer than it may."""


class Alarm:
    """Limits for a whole and for each of its items; an item that computes may take longer than one that waits."""

    def __init__(self, *, total_s: float, idle_s: float, busy_s: float) -> None:
        self.total_s, self.idle_s, self.busy_s = total_s, idle_s, busy_s
        self._tick_s = min(LONGEST_TICK_S, min(total_s, idle_s, busy_s) / TICKS)
        self._self = identify(os.getpid())
        self._seen: Vitals | None = None
        self._looked_at = time.monotonic()
        self._spent_s = self._item_s = self._burned_s = 0.0

    def next_item(self) -> None:
        """Begin the next item."""
        self._item_s = self._burned_s = 0.0

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise TimeIsUp inside the block when the time is up, also out of a call that waits."""
        self._spent_s = 0.0
        self.next_item()
        self._look()
        before = signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, self._tick_s, self._tick_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _look(self) -> Stillness:
        """Return what has counted since the last look."""
        now, seen = time.monotonic(), look(self._self) if self._self is not None else None
        if seen is not None:
            seen = dataclasses.replace(seen, state="S")  # whoever looks at itself is found running
        counted = vitals.after(Stillness(), self._seen, seen, passed_s=now - self._looked_at)
        self._looked_at, self._seen = now, seen
        return counted

    def _tick(self, _: int, __: FrameType | None) -> None:
        counted = self._look()
        self._spent_s += counted.charged_s
        self._item_s += counted.charged_s
        self._burned_s += counted.burned_s
        item_s = self.busy_s if self._burned_s >= BUSY_SHARE * self._item_s else self.idle_s
        if self._spent_s >= self.total_s:
            raise TimeIsUp(f"it took longer than {self.total_s:.3g} s")
        if self._item_s >= item_s:
            raise TimeIsUp(f"a batch of it took longer than {item_s:.3g} s")
