"""The picture as JSON: the answer of ``overnight status --json`` and the status file."""

from __future__ import annotations

from typing import Any

from overnight.domain.picture import iso
from overnight.status import judge
from overnight.status.snapshot import Process, Snapshot

SCHEMA = 1


def to_json(shot: Snapshot) -> dict[str, Any]:
    """Return the answer of ``overnight status --json``."""
    live = shot.heartbeat if shot.attempt is not None else None
    return {
        "schema": SCHEMA,
        "workspace": shot.workspace,
        "state": shot.state.value,
        "reason": shot.standing.reason,
        "since": iso(shot.standing.since),
        "step": shot.step,
        "total": shot.total,
        "loss": shot.losses[0],
        "eval_loss": shot.losses[1],
        "learning_rate": live.learning_rate if live else None,
        "eta_s": live.eta_s if live else None,
        "tokens_per_second": live.tokens_per_second if live else None,
        "job": _job_json(shot),
        "queue": shot.queue,
        "next": shot.next_files,
        "checkpoint": _checkpoint_json(shot),
        "version": shot.version,
        "consolidation": _making_json(shot),
        "judge": judge.to_json(shot.judged),
        "daemon": _process_json(shot.daemon, "state", with_since=True),
        "watchdog": _process_json(shot.watchdog, "state"),
        "trainer": _process_json(shot.trainer, "phase"),
        "web": None,
        "wishes": {
            name: {"reason": wish.reason, "since": iso(wish.at)} for name, wish in sorted(shot.wishes.items())
        },
        "updated_at": iso(shot.at),
    }  # fmt: skip


def training_status(shot: Snapshot) -> dict[str, Any]:
    """Return what stands in status/training_status.json."""
    live = shot.heartbeat if shot.attempt is not None else None
    return {
        "schema": SCHEMA,
        "state": shot.state.value,
        "phase": live.phase.value if live else None,
        "step": shot.step,
        "total": shot.total,
        "loss": shot.losses[0],
        "eval_loss": shot.losses[1],
        "learning_rate": live.learning_rate if live else None,
        "epoch": live.epoch if live else None,
        "tokens_per_second": live.tokens_per_second if live else None,
        "eta_s": live.eta_s if live else None,
        "file": shot.job.file if shot.job else None,
        "job": shot.job.id if shot.job else None,
        "attempt": shot.attempt.id if shot.attempt else None,
        "checkpoint": shot.checkpoint.step if shot.checkpoint else None,
        "pid": shot.trainer.pid if shot.trainer else None,
        "updated_at": iso(shot.at),
    }


def _job_json(shot: Snapshot) -> dict[str, Any] | None:
    job = shot.job
    if job is None:
        return None
    start = job.start_step if job.start_step is not None else shot.step
    total = job.steps if job.steps is not None else (shot.total - start if shot.total > shot.step else None)
    return {
        "id": job.id,
        "file": job.file,
        "priority": job.priority.value,
        "attempt": job.attempts,
        "step": max(0, shot.step - start),
        "total": total,
    }


def _checkpoint_json(shot: Snapshot) -> dict[str, Any] | None:
    if shot.checkpoint is None:
        return None
    return {
        "step": shot.checkpoint.step,
        "path": shot.checkpoint.path,
        "verified": shot.is_checkpoint_verified,
    }


def _making_json(shot: Snapshot) -> dict[str, Any] | None:
    making = shot.making
    if making is None:
        return None
    return {
        "pid": making.pid, "since": iso(making.since), "phase": making.phase, "part": making.part,
        "parts": making.parts,
    }  # fmt: skip


def _process_json(process: Process | None, word: str, *, with_since: bool = False) -> dict[str, Any] | None:
    if process is None:
        return None
    value: dict[str, Any] = {"pid": process.pid, word: process.state}
    return {**value, "since": iso(process.since)} if with_since else value
