"""Waiting for the next tick: a signal, an answered errand or the trainer's end wakes the loop at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType

LEAVE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Bell:
    """One pipe that anybody may ring: signal handlers, other threads."""

    def __init__(self) -> None:
        self._ear, self._cord = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._cord, False)

    def ring(self) -> None:
        """Wake the loop."""
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self._cord, b"!")

    def wait(self, seconds: float, *, also: int | None = None) -> None:
        """Return when somebody rings, when ``also`` becomes readable, or after some seconds."""
        ears = [self._ear] if also is None else [self._ear, also]
        ready, _, _ = select.select(ears, [], [], seconds)
        if self._ear in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._ear, 4096):
                    pass

    def ring_on_signals(self, note: Callable[[], None]) -> None:
        """Note each wish to leave and wake the loop; nothing else happens inside a handler."""

        def handle(number: int, frame: FrameType | None) -> None:
            note()
            self.ring()

        for number in LEAVE:
            signal.signal(number, handle)
        if hasattr(signal, "SIGIO"):
            signal.signal(signal.SIGIO, lambda number, frame: None)  # of a lease that somebody breaks
