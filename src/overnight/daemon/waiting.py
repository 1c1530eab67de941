"""Waiting for the next tick: a signal, an answered errand or the trainer's end wakes the loop at once."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import threading
from types import FrameType

LEAVE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
HARMLESS = ("SIGUSR2", "SIGIO")
"""Signals that would end a program that does not expect them; SIGIO tells of a lease that somebody breaks."""


class Bell:
    """One pipe that anybody may ring: signal handlers, other threads."""

    def __init__(self) -> None:
        self.signals = 0  # how often we were asked to end
        self._is_closed = False
        self._lock = threading.RLock()  # of the main thread it may be taken twice: a signal's handler rings too
        self._ear, self._cord = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._cord, False)

    def ring(self) -> None:
        """Wake the loop; an errand that is answered after its end wakes nobody.

        Never between the look and the write may the pipe be closed: its number is then given out again, and the byte
        would land in another file, such as a database that was just opened.
        """
        with self._lock:
            if self._is_closed:
                return
            with contextlib.suppress(OSError):  # it rings already
                os.write(self._cord, b"!")

    def wait(self, seconds: float, *, also: int | None = None, or_else: int | None = None) -> None:
        """Return when somebody rings, when one of the two others becomes readable, or after some seconds."""
        poll = select.poll()  # unlike select it takes any descriptor number
        for descriptor in (self._ear, also, or_else):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)]
        if self._ear in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._ear, 4096):
                    pass

    def ring_on_signals(self) -> None:
        """Count each wish to end and wake the loop; nothing else happens inside a handler."""
        for number in LEAVE:
            signal.signal(number, self._on_signal)
        for name in HARMLESS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda number, frame: None)
        if hasattr(faulthandler, "register"):  # USR1: where each thread stands, into the log
            faulthandler.register(signal.SIGUSR1, file=2, all_threads=True, chain=False)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self.ring()

    def close(self) -> None:
        """Give the pipe back; once, whoever asks how often."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            os.close(self._ear)
            os.close(self._cord)
