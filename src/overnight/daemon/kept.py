"""One process that the watchdog keeps alive: found, started, listened to, ended where it hangs.

What to do about it is the watchdog's affair (watchdog.py); here is what is known of it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from overnight.disk import files
from overnight.domain.errors import ExitCode
from overnight.domain.guard import Verdict
from overnight.launchers import beats, processes
from overnight.launchers.processes import Identity

LONGEST_LOOK_S = 2.0
"""What the time between two looks may count: after a longer gap it was the watchdog that stood still."""

LONGEST_PAUSE_S = 60.0
LAST_WORDS_BYTES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How it ended; ``code`` is None where nobody can tell (negative: a signal)."""

    code: int | None
    why: str


@dataclass(slots=True, kw_only=True)
class Kept:
    """One process that is to run."""

    name: str
    lock: Path  # held by whoever runs, whoever started it
    log: Path  # where its standard error goes
    start: Callable[[], subprocess.Popen[bytes]]
    child: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    exit_descriptor: int | None = None
    passed_on: int = 0  # signals that it was told of
    killed_for: str = ""
    killed_at: float = 0.0  # monotonic seconds
    starts: list[float] = field(default_factory=list)  # monotonic seconds
    not_before: float = 0.0  # monotonic seconds
    last_end: str = ""
    _ear: beats.Ear | None = None
    _log_began: int = 0

    @property
    def is_there(self) -> bool:
        """Whether one is known to run."""
        return self.identity is not None

    def adopt(self) -> bool:
        """Take up the one that runs without being our child; return whether there is one."""
        identity = processes.identity_of(files.lock_holder(self.lock))
        if identity is None:
            return False
        self._take(identity)
        return True

    def begin(self) -> None:
        """Start a new one. Raises LaunchError."""
        self.starts.append(time.monotonic())
        self._log_began = _size(self.log)
        self.child = self.start()
        identity = processes.identify(self.child.pid)
        if identity is not None:  # else it has ended already, which the next look tells
            self._take(identity)

    def find_end(self) -> End | None:
        """Return how it ended, None while it runs. Raises OSError where nobody can tell."""
        if self.child is not None:
            code = self.child.poll()
            if code is None:
                return None
            words = "" if code in (ExitCode.OK, ExitCode.BUSY) else _last_words(self.log, self._log_began)
            end = End(code=code, why=f"ended with {shown(code)}" + (f" ({words})" if words else ""))
        elif self.identity is not None and processes.is_alive(self.identity):
            return None
        else:
            end = End(code=None, why="is gone")
        if self.killed_for:
            end = End(code=end.code, why=f"was killed: {self.killed_for}")
        self._forget()
        self.last_end = end.why
        return end

    def has_begun(self, *, at: float) -> bool:
        """Return whether it hears signals already: it beats, or it was there before us."""
        silence = self._ear.look(at=at) if self._ear is not None else None
        return self.child is None or (silence is not None and silence.look.count is not None)

    def judge(self, *, at: float, limit_s: float) -> Verdict | None:
        """Look once and judge; None where it is gone. Raises OSError where nobody can tell."""
        return self._ear.judge(at=at, limit_s=limit_s) if self._ear is not None else None

    def pause(self, *, quick: int, window_s: float) -> float:
        """Set when the next start may be, and return the pause: none for the first few, then longer and longer."""
        now = time.monotonic()
        self.starts = [at for at in self.starts if now - at < window_s]
        surplus = len(self.starts) - quick
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(surplus - 1, 16)) if surplus > 0 else 0.0
        self.not_before = now + pause_s
        return pause_s

    def _take(self, identity: Identity) -> None:
        self.identity = identity
        self.exit_descriptor = processes.open_process(identity)
        self._ear = beats.Ear(identity, longest_s=LONGEST_LOOK_S)
        self.passed_on, self.killed_for = 0, ""

    def _forget(self) -> None:
        if self.exit_descriptor is not None:
            processes.close(self.exit_descriptor)
        if self._ear is not None:
            self._ear.close()
        self.child = self.identity = self.exit_descriptor = self._ear = None
        self.killed_for = ""


def shown(code: int) -> str:
    """Return an exit code of a child in words."""
    import signal  # only its names: no signal is sent here

    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _last_words(log: Path, began: int) -> str:
    """Return the last line that it left on standard error since it was started."""
    try:
        with open(log, "rb") as file:
            file.seek(max(began, _size(log) - LAST_WORDS_BYTES))
            lines = file.read(LAST_WORDS_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
