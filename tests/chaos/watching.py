"""Watching a workspace from outside while faults hit it: each step, each phase, the status file, doubles."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.members import GUARDS, Member, facts_of, members

LOOK_S = 0.003
STATUS_S = 0.02
MEMBERS_S = 0.15
DOUBLE_S = 6.0
"""Two of a kind for longer than this are two: a member that has just lost the race for its lock is leaving."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a heartbeat said when it was new."""

    at: float
    attempt: str
    phase: str
    step: int
    is_trained: bool  # the step is beyond the one that the attempt began with


@dataclass
class Watching:
    """A thread that looks, and what it saw. Times are monotonic seconds."""

    root: Path
    steps: list[Seen] = field(default_factory=list)  # each newly trained step
    now: Seen | None = None
    offences: list[str] = field(default_factory=list)
    sessions: set[tuple[int, int]] = field(default_factory=set)
    looks: int = 0
    ours: set[int] = field(default_factory=set)  # processes that the run itself started beside a member
    _first: dict[str, int] = field(default_factory=dict)
    _status: dict[str, Any] = field(default_factory=dict)
    _doubles: dict[str, float] = field(default_factory=dict)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _listing: tuple[int, list[str]] = (0, [])
    _beat: tuple[int, int] = (0, 0)

    def start(self) -> Watching:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    # what others ask

    def attempt(self) -> str:
        """Return the newest attempt's name, "" before the first."""
        folder = self.root / ".overnight" / "attempts"
        try:
            stamp = os.stat(folder).st_mtime_ns
            if stamp != self._listing[0]:
                # the newest is the one made last: a job that waited may have a smaller number
                names = sorted(os.listdir(folder), key=lambda name: (_made_at(folder / name), name))
                self._listing = (stamp, names)
        except OSError:
            return ""
        return self._listing[1][-1] if self._listing[1] else ""

    def heartbeat(self, attempt: str) -> dict[str, Any] | None:
        path = self.root / ".overnight" / "attempts" / attempt / "heartbeat.json"
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            return None

    def first_step(self, attempt: str) -> int:
        """Return the step that an attempt began with, as its spec says."""
        if attempt not in self._first:
            try:
                spec = json.loads((self.root / ".overnight" / "attempts" / attempt / "spec.json").read_bytes())
            except (OSError, ValueError):
                return 0
            begun = str(spec["checkpoint"] or "").rpartition("-")[2]
            self._first[attempt] = int(begun) if begun else int(spec["start_step"])
        return self._first[attempt]

    def is_reported(self, attempt: str) -> bool:
        return (self.root / ".overnight" / "attempts" / attempt / "report.json").exists()

    def trained_after(self, at: float, *, other_than: str | None = None) -> Seen | None:
        """Return the first step trained after a moment, perhaps of another attempt than one."""
        for seen in reversed(self.steps):
            if seen.at <= at:
                break
        else:
            seen = None
        for step in self.steps[self.steps.index(seen) + 1 if seen else 0 :]:
            if step.attempt != other_than:
                return step
        return None

    # the thread

    def _watch(self) -> None:
        status_at = members_at = 0.0
        while not self._is_over.is_set():
            at = time.monotonic()
            self._look_at_heartbeat(at)
            if at >= status_at:
                status_at = at + STATUS_S
                self._look_at_status()
            if at >= members_at:
                self._look_at_members(at)
                members_at = time.monotonic() + MEMBERS_S
            self._is_over.wait(LOOK_S)

    def _look_at_heartbeat(self, at: float) -> None:
        attempt = self.attempt()
        path = self.root / ".overnight" / "attempts" / attempt / "heartbeat.json"
        try:
            facts = os.stat(path)
        except OSError:
            return
        if (facts.st_ino, facts.st_mtime_ns) == self._beat:
            return
        beat = self.heartbeat(attempt)
        if beat is None or beat.get("attempt") != attempt:
            return
        self._beat = (facts.st_ino, facts.st_mtime_ns)
        step = int(beat["step"])
        seen = Seen(at, attempt, str(beat["phase"]), step, step > self.first_step(attempt))
        before, self.now = self.now, seen
        if seen.is_trained and (before is None or (before.attempt, before.step) != (attempt, step)):
            self.steps.append(seen)

    def _look_at_status(self) -> None:
        """The step in the status file goes back only to the checkpoint that a later attempt began with."""
        path = self.root / "status" / "training_status.json"
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as error:
            self.offences.append(f"the status file was half written: {error}")
            return
        self.looks += 1
        before, self._status = self._status, value
        if not before or value["step"] >= before["step"]:
            return
        if value["attempt"] is None and value["step"] == value["checkpoint"]:
            return  # nothing works on it now, and the next attempt goes on from there
        attempt = value["attempt"] or self.attempt()
        if attempt == before["attempt"] or value["step"] < self.first_step(attempt):
            self.offences.append(
                f"the step went back from {before['step']} ({before['attempt']}) to {value['step']} ({attempt}, which"
                f" began at {self.first_step(attempt)})"
            )

    def _look_at_members(self, at: float) -> None:
        there = members(self.root)
        self.sessions.update((member.pid, member.started) for member in there if member.session == member.pid)
        for role in (*GUARDS, "trainer"):
            same = [member for member in there if member.role == role and member.pid not in self.ours]
            if len(same) < 2 or any(_is_stopped(member) for member in same):
                self._doubles.pop(role, None)
            elif at - self._doubles.setdefault(role, at) > DOUBLE_S:
                self._doubles[role] = at + 3600  # told once
                told = ", ".join(f"pid {member.pid} {member.attempt}" for member in same)
                self.offences.append(f"two at once: {role}: {told}")


def _is_stopped(member: Member) -> bool:
    facts = facts_of(member.pid)
    return facts is None or facts[0] in "TtD"


def _made_at(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(folder / "spec.json").st_mtime_ns
    with contextlib.suppress(OSError):
        return os.stat(folder).st_mtime_ns
    return 0
