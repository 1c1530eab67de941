"""What a tick works with, and what the loop remembers from one tick to the next.

Nothing in the memory is needed to be right: a new loop starts with an empty one and reaches the same decisions from the
database, the disk and the processes.
"""

from __future__ import annotations

import logging
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from overnight.daemon.errands import Errands
from overnight.daemon.locks import Locks
from overnight.daemon.waiting import Bell
from overnight.daemon.wishes import Stop, Wishes
from overnight.database import events
from overnight.disk import lease
from overnight.disk.layout import Layout
from overnight.disk.logs import Pump
from overnight.domain.attempt import Heartbeat
from overnight.domain.config import Settings
from overnight.domain.errors import OvernightError
from overnight.domain.failure import EndedBy
from overnight.domain.health import Health
from overnight.domain.pace import PATIENCE, Kind, Pace, Patiences
from overnight.domain.vitals import Stillness, Vitals
from overnight.launchers.base import Launcher
from overnight.launchers.beats import Beat
from overnight.launchers.program import Program, on_disk
from overnight.launchers.spare import Spare


@dataclass(frozen=True, slots=True)
class Moment:
    """The clock, read once a tick."""

    unix: float  # seconds, UTC: for records
    boot: float  # seconds since boot, suspend included: for elapsed time


@dataclass(slots=True)
class Suspicion:
    """A trainer that is found stuck, while evidence is taken."""

    verdict: Health
    at: float  # boot seconds
    errand: str
    work: Callable[[], list[str]] | None = None


@dataclass(slots=True)
class Watched:
    """What the loop saw of the attempt that works now."""

    attempt: str
    handle: str | None
    ticked_at: float  # boot seconds
    begun_at: float = float("inf")  # boot seconds: when the loop first saw it
    looks: tuple[int, int] | None = None  # inode and time of the heartbeat file that was read last
    heartbeat: Heartbeat | None = None
    from_start: bool = False  # the loop saw it begin, so that also its first move was timed
    vitals: Vitals | None = None
    still: Stillness = field(default_factory=Stillness)
    subject: str = ""  # what it has in common with those from whose paces it is judged
    paces: dict[Kind, Pace] = field(default_factory=dict)
    remember_at: float = float("-inf")  # boot seconds: when the paces are written down again
    limit: Health | None = None  # the last judgement
    slow: str = ""  # that it moves, and much slower than usual
    lately_s: float = 0.0  # what its latest moves took, the older the less
    lately_held_s: float = 0.0  # of it: it was not let run
    warned: bool = False
    woken_at: float = float("-inf")  # boot seconds
    suspicion: Suspicion | None = None
    noted_total: int | None = None
    noted_commit: int | None = None
    touched_at: float = float("-inf")  # boot seconds: when it was last told that somebody watches
    stop: Stop | None = None
    stop_at: float = 0.0  # boot seconds
    ended_by: EndedBy = EndedBy.ITSELF
    progress_at_stop: int | None = None
    stage: int = 0  # 1: asked, 2: TERM, 3: KILL
    killed_at: float = 0.0  # boot seconds
    complained: bool = False


@dataclass(slots=True)
class Standing:
    """What the loop says it is doing, and since when."""

    state: str = "idle"
    reason: str = ""
    since: float = 0.0  # unix seconds


@dataclass(slots=True)
class Warmth:
    """The spare trainer, and what is known of the ones before it. Times are boot seconds."""

    spare: Spare | None = None
    started_at: float = 0.0
    looked_at: float = 0.0
    fits: bool = True
    busy_at: float = 0.0
    troubles: int = 0
    trouble_at: float = float("-inf")
    is_told: bool = False  # that this spare is ended
    is_swept: bool = False  # none of an earlier loop is left
    leaders: dict[int, None] = field(default_factory=dict)  # the last spares and trainers, oldest first


@dataclass(slots=True)
class Context:
    """One loop."""

    layout: Layout
    connection: sqlite3.Connection
    launcher_of: Callable[[str], Launcher]
    log: logging.Logger
    limits: Settings
    bell: Bell
    errands: Errands
    started_at: float  # unix seconds
    patiences: Patiences = field(default_factory=lambda: PATIENCE)
    beat: Beat = field(default_factory=Beat)
    config_problem: OvernightError | None = None
    config_looks: object = ()  # of the file that was read last; None where there was no file
    launcher: Launcher | None = None
    wishes: Wishes = field(default_factory=Wishes)
    is_over: bool = False
    lost_at: float | None = None  # boot seconds: when the workspace was found moved or removed under us
    watched: Watched | None = None
    standing: Standing = field(default_factory=Standing)
    locks: Locks | None = None
    pump: Pump | None = None
    helpers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    warmth: Warmth = field(default_factory=Warmth)
    program: Program = field(default_factory=on_disk)  # what this loop is made of

    @property
    def signals(self) -> int:
        """How often the loop was asked to end, by signals or because its workspace went away."""
        return max(self.bell.signals, int(self.lost_at is not None))

    def tell(self, key: str, message: str, *, kind: str, level: str = "warning", at: float, **data: Any) -> bool:
        """Say something in the log and in the history where it differs from the last word of that key."""
        if self.told.get(key) == message:
            return False
        self.told[key] = message
        self.record(message, kind=kind, level=level, at=at, **data)
        return True

    def record(self, message: str, *, kind: str, level: str = "info", at: float, **data: Any) -> None:
        """Say something in the log and in the history."""
        self.log.log(logging.getLevelName(level.upper()), "%s", message)
        try:
            events.record(self.connection, now=at, kind=kind, message=message, level=level, **data)
        except sqlite3.Error as error:  # a full disk: the log has it, and the run must go on
            self.log.warning("the history cannot be written: %s", error)

    def forget(self, key: str) -> None:
        """Let the next word of that key be said again."""
        self.told.pop(key, None)

    def stand(self, state: str, reason: str, *, at: float) -> None:
        """Say what the loop is doing; since when stays while state and reason stay."""
        if (self.standing.state, self.standing.reason) != (state, reason):
            self.standing = Standing(state=state, reason=reason, since=at)
            self.log.info("%s: %s", state, reason)

    def close(self) -> None:
        """Give back what is open; processes go on, but for the spare trainer."""
        if self.warmth.spare is not None:
            self.warmth.spare.end()
            self.warmth.spare = None
        if self.pump is not None:
            self.pump.close()
        if self.locks is not None:
            lease.remove(self.layout)
        self.connection.close()
        self.bell.close()
