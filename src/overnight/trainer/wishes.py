"""Whether the trainer is asked to leave: by a notice, by a signal, or because nobody looks after it any more.

Signals only set a flag, which is read at step borders. While the trainer loads there is nothing to save: then a signal
ends it on the spot.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from types import FrameType

from overnight.disk import attempts, files
from overnight.launchers import beats, processes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LOOK_EVERY_S = 5.0
"""Between two looks at whether somebody looks after us."""


def unwatched_s(folder: Path, daemon_lock: Path | None, *, limit_s: float) -> float | None:
    """Return for how long nobody has looked after the trainer, None where somebody does.

    A loop that cannot write (a full or read-only disk) beats in memory all the same.
    """
    passed_s = attempts.unwatched_s(folder)
    if passed_s is None or passed_s <= limit_s:
        return None
    with contextlib.suppress(OSError):
        holder = files.lock_holder(daemon_lock) if daemon_lock is not None else None
        pid = holder.get("pid") if holder is not None else None
        identity = processes.identify(pid) if isinstance(pid, int) else None
        heard = beats.hear(identity) if identity is not None else None
        if heard is not None and attempts.boot_time() - heard.at <= limit_s:
            return None
    return passed_s


class AskedToLeave(BaseException):
    """The trainer is asked to leave, and nothing need be saved; passes every ``except Exception``."""


class Wishes:
    """What others want of this trainer."""

    def __init__(self, folder: Path, *, unwatched_limit_s: float, daemon_lock: Path | None = None) -> None:
        self.folder = folder
        self.daemon_lock = daemon_lock
        self.unwatched_limit_s = unwatched_limit_s
        self.can_leave_at_once = True
        self._signal: str | None = None
        self._next_look = time.monotonic() + LOOK_EVERY_S

    def listen(self) -> None:
        """Take over the signals that mean "leave"."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGUSR2, lambda number, frame: None)  # unheeded it would end the trainer

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if self.can_leave_at_once:
            raise AskedToLeave(f"asked to stop by {self._signal}")

    def reason(self) -> str | None:
        """Return why the trainer shall leave, or None. Cheap: made to be asked at each step."""
        if self._signal is not None:
            return f"asked to stop by {self._signal}"
        notice = attempts.read_notice(self.folder)
        if notice is not None:
            return notice.reason
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + LOOK_EVERY_S
        unwatched = unwatched_s(self.folder, self.daemon_lock, limit_s=self.unwatched_limit_s)
        return f"nobody has looked after this trainer for {unwatched:.0f} s" if unwatched is not None else None

    def obey_at_once(self) -> None:
        """Raise AskedToLeave where that is wished; for phases in which there is nothing to save."""
        reason = self.reason()
        if reason is not None:
            raise AskedToLeave(reason)
