"""Work that is killed at each call that changes a disk, in turn: real processes, a real SIGKILL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

SYSCALLS = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir")


def killed_at(number: int, act: Callable[[], object]) -> bool:
    """Run something in a child process that is killed at the n-th call that changes a disk; return whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def wrap(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)

            return call

        for name in SYSCALLS:
            setattr(os, name, wrap(getattr(os, name)))
        try:
            act()
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def until_it_survives(
    act: Callable[[], object], check: Callable[[], None], prepare: Callable[[], None], *, every: int = 2
) -> int:
    """Kill at each ``every``-th point (all with OVERNIGHT_ALL_POINTS); return at how many."""
    number, points = 1, 0
    while True:
        prepare()
        was_killed = killed_at(number, act)
        check()
        if not was_killed:
            return points
        points += 1
        number += 1 if os.environ.get("OVERNIGHT_ALL_POINTS") else every
