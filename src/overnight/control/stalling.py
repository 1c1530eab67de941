"""Whether a run waits for what will not heal by itself: a broken environment, refused settings, a file nobody can read.

Only what work changes counts as a move: the step, the number of jobs in each state, the files that wait. A full disk
and another trainer on the model are waited for without end, as is an operator's pause: those pass, or somebody wants
them.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field

from overnight.database import events
from overnight.disk import config, files, inbox, needs
from overnight.disk.layout import Layout
from overnight.domain.picture import State, age
from overnight.status import Snapshot

GIGABYTE = 1e9
TOLD_S = 10.0
"""What is waited for is told when it has stood for so long: between two jobs there is always an instant of waiting."""


@dataclass(slots=True)
class Stalling:
    """What was waited for at the last look, and since when nothing has moved."""

    layout: Layout
    connection: sqlite3.Connection
    waits_for: str = ""
    moved_at: float = field(default_factory=time.monotonic)
    _looks: object = None
    _same_since: float = 0.0
    _is_told: bool = True

    def look(self, shot: Snapshot) -> str:
        """Look once; return, once, what is waited for when it has stood for a while; else ""."""
        before, self.waits_for = self.waits_for, self._waits_for(shot)
        if before != self.waits_for:
            self._same_since, self._is_told = time.monotonic(), False
        open_jobs = shot.queue["queued"] + shot.queue["running"]
        ended = {state: number for state, number in shot.queue.items() if state not in ("queued", "running")}
        looks = (shot.step, open_jobs, ended, inbox.has_work(self.layout))
        if looks != self._looks or not self.waits_for or not self._is_lasting(shot):  # a slow start is no waiting
            self._looks, self.moved_at = looks, time.monotonic()
        if self._is_told or time.monotonic() - self._same_since < min(TOLD_S, self._limit_s() / 2):
            return ""
        self._is_told = True
        return self.waits_for

    def gives_up(self, shot: Snapshot) -> str:
        """Return why it is of no use to wait any longer, "" where it may be."""
        waited_s = time.monotonic() - self.moved_at
        if not self.waits_for or waited_s <= self._limit_s():
            return ""
        return f"given up after {age(waited_s)} in which nothing moved; still waiting: {self.waits_for}"

    def _limit_s(self) -> float:
        return config.raw_number(self.layout, "watch", "no_progress_s", 600.0)

    def _waits_for(self, shot: Snapshot) -> str:
        if shot.state is State.WAITING and shot.trainer is None:
            return shot.standing.reason
        if shot.state is State.IDLE and inbox.has_work(self.layout):
            last = [events.newest_of(self.connection, kind) for kind in ("intake.waiting", "inbox.waiting")]
            told = max((event for event in last if event is not None), key=lambda event: event["id"], default=None)
            return str(told["message"]) if told is not None else "a file in the inbox is not yet taken"
        return ""

    def _is_lasting(self, shot: Snapshot) -> bool:
        """Return whether waiting may last for ever: not where it passes by itself, or where the operator wants it."""
        if shot.state in (State.PAUSED, State.STOPPED, State.STOPPING) or shot.trainer is not None:
            return False
        wanted = config.raw_number(self.layout, "disk", "min_free_gb", 2.0) * GIGABYTE
        if files.free_bytes(self.layout.root) < wanted:
            return False
        return needs.trouble(needs.places_of(self.layout), needs.of_newest(shot.checkpoint)) is None
