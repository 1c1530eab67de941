"""Killing at every point: strace ends a process as it enters its n-th call of one kind, for n = 1, 2, 3, ...

strace counts each system call for itself: one that is told to strike at the fifth of "fsync,fdatasync" never comes to
the fifth fsync where there are five fdatasync before it. So each call has a sweep of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

CALLS = ("rename", "unlink", "unlinkat", "rmdir", "fsync", "fdatasync")
"""What the product renames, removes and syncs with; SQLite syncs with fdatasync."""

EVERY_POINT = "OVERNIGHT_EVERY_ARROW" in os.environ
"""Set it for every single point instead of a few; ``make sweep`` does."""

MOST = 400
"""More points than any sweep has; one that comes so far does not end by itself."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace to kill at a system call (apt-get install strace)"
)


def strace(call: str, when: int, *, options: Iterable[str] = (), within: Iterable[Path] = ()) -> list[str]:
    """Return the command line that kills what follows at its n-th call, perhaps only those that touch some paths."""
    paths = [word for path in within for word in ("-P", str(path))]
    return ["strace", "-qq", *options, *paths, "-o", os.devnull, "-e", f"trace={call}",
            "-e", f"inject={call}:signal=KILL:when={when}"]  # fmt: skip


def sampled(**few: tuple[int, ...]) -> Any:
    """Return the decorator that gives a test its calls, and the points at which to strike: a few, or all (empty)."""
    values = [(call, ()) for call in CALLS] if EVERY_POINT else list(few.items())
    return pytest.mark.parametrize(("call", "points"), values, ids=[call for call, _ in values])


def sweep(what: str, call: str, points: tuple[int, ...], strike: Callable[[int], bool]) -> int:
    """Strike at the points, or at one after the other until the process ends without having met one.

    ``strike`` runs everything once and returns whether the kill was met. Return how many were.
    """
    met = 0
    for point in points or range(1, MOST):
        if strike(point):
            met += 1
        elif not points:
            break
    else:
        assert points, f"{what}: more than {MOST} points at {call}"
    if not points:
        print(f"{what}: killed at each of {met} {call}", flush=True)
    else:
        assert met == len(points), f"{what}: of the points {points} at {call} only {met} are there any more"
    return met
