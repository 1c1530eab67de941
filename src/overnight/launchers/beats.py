"""The beat of a guard: a counter in memory that others may read, and a few words on what it does.

It lies in a memory file of the guard's own, found through /proc by whoever knows its pid: no disk that is full, slow
or read-only can fake or hide it, it needs no parent, and it dies with its process. Where the system has no such files
there is no beat, and a guard is judged by its kernel state alone.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from overnight.domain import guard
from overnight.domain.guard import Look, Silence, Verdict
from overnight.launchers import processes
from overnight.launchers.processes import Identity

NAME = "overnight-beat"
WORDS_BYTES = 400
RECORD_BYTES = 448


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One beat."""

    count: int
    at: float  # boot seconds
    doing: str


class Beat:
    """Our own beat."""

    def __init__(self) -> None:
        self._count = 0
        self._descriptor: int | None = None
        if hasattr(os, "memfd_create"):
            with contextlib.suppress(OSError):  # refused by a sandbox: then there is no beat
                self._descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)

    def say(self, doing: str, *, at: float) -> None:
        """Beat once; ``at`` is the time since boot."""
        if self._descriptor is None:
            return
        self._count += 1
        words = doing.encode("utf-8", "replace")[:WORDS_BYTES]
        record = b"%d %.3f %d " % (self._count, at, len(words)) + words
        with contextlib.suppress(OSError):  # a limit on file sizes holds for memory files too
            os.pwrite(self._descriptor, record.ljust(RECORD_BYTES), 0)


class Ear:
    """Listens to one guard."""

    def __init__(self, identity: Identity, *, longest_s: float) -> None:
        self.identity = identity
        self.longest_s = longest_s  # what the time between two looks may count
        self.silence: Silence | None = None
        self._descriptor: int | None = None

    def hear(self) -> Heard | None:
        """Return its last beat, or None where it has none (yet), or none that we may read."""
        if self._descriptor is None:
            self._descriptor = _open_beat(self.identity)
        return _parse(os.pread(self._descriptor, RECORD_BYTES, 0)) if self._descriptor is not None else None

    def look(self, *, at: float) -> Silence | None:
        """Look once; None where it is gone."""
        activity = processes.activity(self.identity)
        if activity is None:
            return None
        heard = self.hear()
        look = Look(
            at=at,
            count=heard.count if heard is not None else None,
            doing=heard.doing if heard is not None else "",
            state=activity.state,
            starved_s=activity.starved_s,
        )
        self.silence = guard.listen(self.silence, look, longest_s=self.longest_s)
        return self.silence

    def judge(self, *, at: float, limit_s: float) -> Verdict | None:
        """Look once and judge; None where it is gone."""
        silence = self.look(at=at)
        return guard.judge(silence, limit_s=limit_s) if silence is not None else None

    def close(self) -> None:
        """Listen no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class WorkEar(Ear):
    """Listens to a process without a beat: it moves where it uses the processor."""

    def hear(self) -> Heard | None:
        """Return its processor time as if it were a beat."""
        activity = processes.activity(self.identity)
        return Heard(count=activity.worked, at=0.0, doing="") if activity is not None else None


def hear(identity: Identity) -> Heard | None:
    """Return the last beat of a guard, or None where it has none that we may read."""
    with contextlib.closing(Ear(identity, longest_s=0.0)) as ear:
        return ear.hear()


def _open_beat(identity: Identity) -> int | None:
    folder = processes.PROC / str(identity.pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    for name in names:
        try:
            if not os.readlink(folder / name).startswith(f"/memfd:{NAME}"):
                continue
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if processes.is_alive(identity):
            return descriptor
        os.close(descriptor)  # the number was given out again
        return None
    return None


def _parse(record: bytes) -> Heard | None:
    try:
        count, at, length, words = record.split(b" ", 3)
        return Heard(count=int(count), at=float(at), doing=words[: int(length)].decode("utf-8", "replace"))
    except ValueError:  # not yet written
        return None
