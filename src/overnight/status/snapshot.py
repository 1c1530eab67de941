"""Taking the picture: pure reading, with the loop down, with a damaged heartbeat, on a read-only disk.

``step`` and ``total`` count over the life of the model. ``step`` never goes back except to the checkpoint that a
recovery resumes from; ``total`` is the step at which the current job ends, and ``step`` itself where there is none.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overnight.database import intents, overview, queue
from overnight.database.connection import reading
from overnight.disk import attempts, checkpoints, config, files, locked, needs, trust
from overnight.disk.layout import Layout
from overnight.domain import picture
from overnight.domain.attempt import Attempt, AttemptState, Heartbeat
from overnight.domain.checkpoint import CheckpointReport
from overnight.domain.job import Job
from overnight.domain.picture import Facts, Standing, State, Told, Wish
from overnight.domain.version import MAKING
from overnight.launchers import processes, whispers
from overnight.status import figures, judge, pulses
from overnight.status.figures import Losses
from overnight.status.judge import Judged
from overnight.status.pulses import Pulse

NEXT_FILES = 5
STALE_S = 2.0
"""A heartbeat on the disk that is older is perhaps not the last word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A guard or a trainer that is alive."""

    pid: int | None  # None where its lock is held and does not say by whom
    state: str
    since: float | None  # unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A version that is being made."""

    pid: int | None
    since: float | None  # unix seconds
    phase: str
    part: int
    parts: int | None  # None until counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that there is to see, at one moment."""

    at: float  # unix seconds
    workspace: str
    standing: Standing
    step: int
    total: int
    attempt: Attempt | None  # the open one
    attempt_folder: Path | None  # of the open one, else of the last one
    heartbeat: Heartbeat | None  # of the open one, else of the last one
    losses: Losses  # of the trainer at work, else of the model as it stands
    job: Job | None  # the running one
    queue: dict[str, int]
    next_files: list[str]
    checkpoint: CheckpointReport | None
    is_checkpoint_verified: bool | None  # None: nobody has read it since it was written
    version: str | None
    daemon: Process | None
    watchdog: Process | None
    trainer: Process | None
    wishes: dict[str, Wish]
    judged: Judged = field(default_factory=Judged)
    making: Making | None = None  # the version that is being made
    limit: str = ""  # how long the trainer may take for its next move, as the loop last said

    @property
    def state(self) -> State:
        """The state in one word."""
        return self.standing.state


def snapshot(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Snapshot:
    """Look at a workspace once; what the database says is of one moment."""
    with reading(connection):
        return _look(layout, connection, now=now)


def _look(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Snapshot:
    wishes = _wishes(connection)
    last = overview.last_attempt(connection)
    attempt = last if last is not None and last.state is not AttemptState.ENDED else _open_attempt(connection)
    job = queue.running(connection)
    newest = checkpoints.newest_complete(layout.model)
    shown = attempt or last
    heartbeat = attempts.read_heartbeat(layout.attempt(shown.id)) if shown is not None else None
    model_lock = files.lock_holder(layout.model_lock)
    heartbeat = _newer_in_memory(attempt, heartbeat, model_lock)
    step, total = _steps(layout, connection, attempt=attempt, heartbeat=heartbeat, job=job, newest=newest)
    daemon_lock, told = files.lock_holder(layout.daemon_lock), _told(layout, now=now)
    watchdog_lock = files.lock_holder(layout.watchdog_lock)
    daemon_pulse, watchdog_pulse = pulses.take(daemon_lock), pulses.take(watchdog_lock)
    silence = _silence(layout, daemon_pulse, told) if daemon_lock is not None else ""
    watchdog_silence = _silence(layout, watchdog_pulse, None)
    facts = Facts(
        up=wishes.get("up"),
        down=wishes.get("down"),
        paused=wishes.get("paused"),
        stopped=wishes.get("stopped"),
        daemon_alive=daemon_lock is not None,
        daemon_silence=silence,
        watchdog_pid=_pid(watchdog_lock),
        watchdog_doing=watchdog_silence or (watchdog_pulse.doing if watchdog_pulse is not None else ""),
        is_watchdog_silent=bool(watchdog_silence),
        told=told,
        attempt=attempt,
        heartbeat=heartbeat if attempt is not None else None,
        trainer_alive=model_lock is not None,
        job_file=job.file if job is not None else "a job",
        step=step,
        last_sign=_last_sign(told, heartbeat, now=now),
        queued=(counts := queue.counts(connection))["queued"],
        pause_end=queue.next_pause_end(connection),
        disk=needs.trouble(needs.places_of(layout), needs.of_newest(newest)) or "",
    )
    return Snapshot(
        at=now,
        workspace=str(layout.root),
        standing=picture.decide(facts, now=now),
        step=step,
        total=total,
        attempt=attempt,
        attempt_folder=layout.attempt(shown.id) if shown is not None else None,
        heartbeat=heartbeat,
        losses=figures.losses(layout, connection, attempt=attempt, last=last, heartbeat=heartbeat, newest=newest),
        job=job,
        queue=counts,
        next_files=overview.next_files(connection, limit=NEXT_FILES),
        checkpoint=newest,
        is_checkpoint_verified=trust.is_verified(layout, newest) if newest is not None else None,
        version=locked.version_in_use(layout),
        daemon=_process(daemon_lock, silence or "running"),
        watchdog=_process(watchdog_lock, watchdog_silence or "running"),
        trainer=_trainer(model_lock, heartbeat if attempt is not None else None),
        wishes=wishes,
        judged=judge.look(layout, connection, stands=newest.step if newest is not None else None),
        making=_making(layout),
        limit=told.limit if told is not None else "",
    )


def _wishes(connection: sqlite3.Connection) -> dict[str, Wish]:
    words = {
        "up": "asked to run",
        "down": "everything is ending",
        "paused": "paused",
        "stopped": "stopped after the last file",
    }
    return {
        name: Wish(reason=str(intent.value.get("reason") or words.get(name, name)), at=intent.at)
        for name, intent in intents.standing(connection).items()
    }


def _open_attempt(connection: sqlite3.Connection) -> Attempt | None:
    """Return an attempt that has not ended though a later one was opened: a second one never is, but look."""
    found = queue.open_attempts(connection)
    return found[-1] if found else None


def _steps(
    layout: Layout,
    connection: sqlite3.Connection,
    *,
    attempt: Attempt | None,
    heartbeat: Heartbeat | None,
    job: Job | None,
    newest: CheckpointReport | None,
) -> tuple[int, int]:
    floor = newest.step if newest is not None else locked.read(layout).step or 0
    if attempt is None:
        owner = newest.manifest.job if newest is not None and newest.manifest is not None else None
        ends = [
            begun.start_step + begun.steps
            for begun in overview.interrupted(connection)
            if begun.job == owner or begun.start_step == floor
        ]
        return floor, max(floor, *ends, 0)
    end = job.start_step + job.steps if job and job.start_step is not None and job.steps is not None else 0
    if heartbeat is not None:
        return heartbeat.step, max(heartbeat.step, end if heartbeat.total is None else heartbeat.total)
    step = attempt.first_step if attempt.first_step is not None else floor
    if attempt.state is not AttemptState.STARTING:  # its heartbeat cannot be read: take what was written down last
        step, end = _last_written(layout, attempt, step=step, total=end)
    return step, max(step, end)


def _last_written(layout: Layout, attempt: Attempt, *, step: int, total: int) -> tuple[int, int]:
    try:
        value = files.read_json(layout.status_file)
        if value["attempt"] == attempt.id:
            return max(step, int(value["step"])), max(total, int(value["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is no better word than the attempt's own
    return step, total


def _told(layout: Layout, *, now: float) -> Told | None:
    """Return what the loop last said; None where it never did, or nothing that can be read."""
    try:
        value = files.read_json(layout.daemon_state)
        same_boot = value.get("boot_id") == attempts.boot_id()
        quiet_s = attempts.boot_time() - float(value["beat"]) if same_boot else now - float(value["updated_at"])
        return Told(
            state=str(value["state"]),
            reason=str(value["reason"]),
            since=float(value["since"]),
            quiet_s=max(0.0, quiet_s),
            slow=str(value.get("slow") or ""),
            limit=str(value.get("limit") or ""),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _newer_in_memory(
    attempt: Attempt | None, heartbeat: Heartbeat | None, holder: dict[str, Any] | None
) -> Heartbeat | None:
    """Return what an attempt's trainer says in memory where the disk takes no heartbeat, else the one from the disk."""
    pid = _pid(holder)
    if attempt is None or pid is None:
        return heartbeat
    if heartbeat is not None and attempts.boot_time() - heartbeat.beat_at < STALE_S:
        return heartbeat
    with contextlib.suppress(OSError):  # out of file handles: nothing is known then
        identity = processes.identify(pid)
        if identity is not None:
            return whispers.hear(identity, attempt.id, heartbeat) or heartbeat
    return heartbeat


def _last_sign(told: Told | None, heartbeat: Heartbeat | None, *, now: float) -> float | None:
    signs = [now - told.quiet_s] if told is not None else []
    signs += [heartbeat.written_at] if heartbeat is not None else []
    return max(signs, default=None)


def _silence(layout: Layout, pulse: Pulse | None, told: Told | None) -> str:
    """Return in words that a guard does not move, "" where it does; what it wrote counts where its beat is unknown."""
    quiet_s = pulse.quiet_s if pulse is not None else told.quiet_s if told is not None else 0.0
    if quiet_s <= pulses.NOTICED_S:
        return ""
    limit_s = config.raw_number(layout, "watch", "daemon_dead_s", 30.0)
    if pulse is not None:
        return pulse.silence(limit_s)
    return f"silent for {picture.age(quiet_s)}" if quiet_s > limit_s else ""


def _trainer(holder: dict[str, Any] | None, heartbeat: Heartbeat | None) -> Process | None:
    if holder is None:
        return None
    pid = _pid(holder)
    if heartbeat is not None and pid in (None, heartbeat.pid):
        return Process(pid=heartbeat.pid, state=heartbeat.phase.value, since=None)
    return Process(pid=pid, state="loading", since=None)


def _process(holder: dict[str, Any] | None, state: str) -> Process | None:
    if holder is None:
        return None
    since = holder.get("since")
    return Process(pid=_pid(holder), state=state, since=float(since) if isinstance(since, int | float) else None)


def _pid(holder: dict[str, Any] | None) -> int | None:
    pid = holder.get("pid") if holder is not None else None
    return pid if isinstance(pid, int) else None


def _making(layout: Layout) -> Making | None:
    holder = files.lock_holder(layout.checkpoints_lock)
    if holder is None or holder.get("what") != MAKING:
        return None
    since, beat = holder.get("since"), attempts.read_heartbeat(layout.consolidation)
    return Making(
        pid=_pid(holder),
        since=float(since) if isinstance(since, int | float) else None,
        phase=beat.phase.value if beat is not None else "loading",
        part=beat.part if beat is not None else 0,
        parts=beat.parts if beat is not None else None,
    )
