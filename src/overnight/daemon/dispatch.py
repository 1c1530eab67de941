"""Queued job -> attempt launched, after everything that speaks against it was looked at.

In reading order: is something running, does the operator want it, are the settings sound and the locked ones as they
were, is there space, is the device free; then the newest verified checkpoint is read, and it decides how the job
goes on.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.daemon import filing, wishes
from overnight.daemon.context import Context, Moment
from overnight.database import events, pauses, queue
from overnight.disk import attempts, base_models, checkpoints, files, locked, trust
from overnight.domain.attempt import Attempt, FailureKind, Outcome, Spec
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict
from overnight.domain.config import Settings
from overnight.domain.errors import OvernightError
from overnight.domain.job import Job, JobState
from overnight.domain.locked import locked_keys_changed, refused, unreadable_lock
from overnight.domain.retry import LONGEST_PAUSE_S
from overnight.launchers.base import LaunchError
from overnight.launchers.processes import usable_threads

RECHECK_S = 10.0
"""So often checkpoints that could not be used are read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a job is to go on."""

    mode: str  # "fresh" | "continue" | "resume" | "complete"
    start_step: int  # global step at which the job began
    first_step: int  # global step from which this attempt goes on
    checkpoint: CheckpointReport | None
    settings: dict[str, Any]
    reason: str


def dispatch_next(context: Context, now: Moment) -> None:
    """Launch the next attempt where nothing speaks against it; else say what does."""
    job = _next_job(context, now)
    if job is None:
        context.errands.forget("newest")  # when work goes on, the disk may be another one
        return
    found = _read_checkpoints(context, now)
    if found is not None:
        newest, passed_over = found
        _set_aside(context, newest, passed_over, now)
        again, _ = _choose(context, now)  # what was read may differ from what it looked like
        if again is not None and again.id == job.id:
            _launch(context, job, plan_of(job, newest, context.limits), now)


def _next_job(context: Context, now: Moment) -> Job | None:
    """Return the job to launch now, or None after saying why there is none."""
    if queue.open_attempts(context.connection) or queue.running(context.connection) is not None:
        return None
    if wishes.is_leaving(context.wishes, signals=context.signals):
        context.stand("stopping", "everything ends", at=now.unix)
        return None
    if context.wishes.paused is not None:
        context.stand("paused", context.wishes.paused, at=now.unix)
        return None
    pause_end = queue.next_pause_end(context.connection)
    if pause_end is not None and pause_end > now.unix + 2 * LONGEST_PAUSE_S:
        pauses.end_pauses(context.connection)  # no pause is that long: the clock was set back
    job, wait = _choose(context, now)
    if job is None:
        _rest(context, wait, now)
        return None
    hindrance = _hindrance(context)
    if hindrance is not None:
        _wait(context, hindrance, now)
        return None
    return job


def _rest(context: Context, wait: str, now: Moment) -> None:
    context.forget("dispatch")
    if context.wishes.stopped is not None:
        context.stand("stopped", context.wishes.stopped, at=now.unix)
    elif wait:
        context.stand("waiting", wait, at=now.unix)
    else:
        context.stand("idle", "nothing is queued", at=now.unix)


def _wait(context: Context, reason: str, now: Moment) -> None:
    """Say, once, why nothing is launched."""
    context.tell("dispatch", f"waiting: {reason}", kind="dispatch.waiting", at=now.unix)
    context.stand("waiting", reason, at=now.unix)


def _choose(context: Context, now: Moment) -> tuple[Job | None, str]:
    """Return the job whose turn it is, or why there is none.

    A job whose own checkpoint is the newest one goes first: were another one trained in between, its rows would be
    lost or trained twice. With "stop" only the last begun one is finished.
    """
    current = _current(context)
    if current is None and context.wishes.stopped is None:
        job = queue.next_in_line(context.connection, now=now.unix)
        paused = pauses.first_paused(context.connection) if job is None else None
        return job, f"{paused.file} (job {paused.id}): {paused.reason}" if paused is not None else ""
    if current is not None and current.not_before > now.unix:
        return None, current.reason
    return current, ""


def _current(context: Context) -> Job | None:
    """Return the queued job that was begun and is not to be overtaken."""
    newest = checkpoints.newest_complete(context.layout.model)
    if newest is not None and newest.manifest is not None:
        job = queue.find(context.connection, newest.manifest.job)
        if job is not None and job.state is JobState.QUEUED and _is_own(newest.manifest, job):
            return job
    if context.wishes.stopped is not None:
        return pauses.last_begun(context.connection)
    return None


def _is_own(manifest: Manifest, job: Job) -> bool:
    return manifest.job == job.id and manifest.start_step == job.start_step and manifest.dataset_id == job.dataset


def _hindrance(context: Context) -> str | None:
    """Return what speaks against a launch, cheap things first."""
    if context.config_problem is not None:
        return f"config.json is refused: {one_line(context.config_problem)}"
    known = locked.read(context.layout)
    if not known.readable:
        return unreadable_lock().message
    changed = locked_keys_changed(context.limits, known)
    if changed:
        return one_line(refused(changed))
    needed = context.limits.disk.min_free_gb * 1e9
    free = files.free_bytes(context.layout.root)
    if free < needed:
        return (
            f"the disk is nearly full: {free / 1e9:.2f} GB are free, disk.min_free_gb is"
            f" {context.limits.disk.min_free_gb:g}; goes on by itself when there is space"
        )
    holder = files.lock_holder(context.layout.model_lock)
    if holder is not None:
        return f"another trainer (pid {holder.get('pid', 'unknown')}) still holds the model; waiting until it has ended"
    return None


def one_line(error: OvernightError) -> str:
    """Return an error as one line for status and log."""
    return "; ".join(part.strip() for part in str(error).splitlines() if part.strip())


def _read_checkpoints(context: Context, now: Moment) -> tuple[CheckpointReport | None, list[CheckpointReport]] | None:
    """Return the newest verified checkpoint and what was passed over; None while it is read, or none can be used."""
    if now.boot < context.memory.get("recheck_at", 0.0):
        return None
    answer = context.errands.ask("newest", lambda: checkpoints.newest_verified(context.layout.model))
    if answer is None:
        return None
    newest, passed_over = answer.value
    if newest is not None:
        trust.remember(context.layout, newest)
        return newest, passed_over
    damaged = [report for report in passed_over if report.verdict is not Verdict.FOREIGN]
    reason = None
    if damaged:
        told = "; ".join(f"{Path(report.path).name}: {report.reason}" for report in damaged[:3])
        reason = f"CRITICAL: No checkpoint can be trusted ({told}). Nothing is started from the base model"
    elif (step := _ever_committed(context)) is not None:
        reason = (
            f"CRITICAL: The checkpoints are gone: current_model/ holds none, and step {step} was saved before."
            " Nothing is started from the base model"
        )
    if reason is None:
        return None, passed_over
    fix = "put them back from a copy into current_model/, or make a new workspace with overnight init"
    _wait(context, f"{reason}; {fix}", now)
    context.memory["recheck_at"] = now.boot + RECHECK_S
    return None


def _ever_committed(context: Context) -> int | None:
    """Return a step that was once committed, or None where none ever was."""
    event = events.newest_of(context.connection, "checkpoint.committed")
    if event is not None:
        return int(event["data"].get("step", 0))
    try:
        return int(files.read_json(context.layout.config_lock)["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _set_aside(
    context: Context, newest: CheckpointReport | None, passed_over: list[CheckpointReport], now: Moment
) -> None:
    """Move newer checkpoints that cannot be trusted out of the way; nothing of them is deleted."""
    for report in passed_over:
        if newest is None or report.verdict is Verdict.FOREIGN:
            continue
        name = Path(report.path).name
        resting = checkpoints.set_aside(Path(report.path), context.layout.trash)
        context.record(
            f"{name} is set aside, it is {report.verdict.value}: {report.reason}; work goes on from"
            f" {Path(newest.path).name}",
            kind="checkpoint.set_aside", level="error", at=now.unix, step=report.step, trash=str(resting),
        )  # fmt: skip


def plan_of(job: Job, newest: CheckpointReport | None, settings: Settings) -> Plan:
    """Decide how a job goes on from where the model stands."""
    manifest = newest.manifest if newest is not None else None
    if newest is not None and manifest is not None and job.settings is not None and _is_own(manifest, job):
        is_complete = manifest.job_step >= manifest.job_total
        return Plan(
            mode="complete" if is_complete else "resume",
            start_step=manifest.start_step,
            first_step=newest.step,
            checkpoint=newest,
            settings=job.settings,
            reason=f"resumes at step {newest.step}" if not is_complete else "was trained to the end already",
        )
    step = newest.step if newest is not None else 0
    return Plan(
        mode="fresh" if newest is None else "continue",
        start_step=step,
        first_step=step,
        checkpoint=newest,
        settings=frozen(settings),
        reason="begins from the base model" if newest is None else f"continues the model from step {step}",
    )


def frozen(settings: Settings) -> dict[str, Any]:
    """Return the settings that a job keeps to its end, the number of threads settled."""
    value = settings.to_json()
    if value["train"]["threads"] is None:
        value["train"] = {**value["train"], "threads": usable_threads()}
    return value


def seed_of(seed: int, start_step: int) -> int:
    """Return the seed of a job: another one for each job, the same one for each of its attempts."""
    digest = hashlib.blake2b(f"{seed}:{start_step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


def _launch(context: Context, job: Job, plan: Plan, now: Moment) -> None:
    attempt = queue.dispatch(
        context.connection, job.id, settings=plan.settings, start_step=plan.start_step, first_step=plan.first_step,
        reason=plan.reason, now=now.unix,
    )  # fmt: skip
    if attempt is None:
        return  # cancelled in the meantime
    context.forget("dispatch")
    context.forget("adopted")
    context.log.info("%s (job %d), attempt %s: %s", job.file, job.id, attempt.id, plan.reason)
    if plan.mode == "complete":
        _end_unlaunched(context, attempt, Outcome.COMPLETED, None, plan.reason, now)
        return
    try:
        _start(context, job, plan, attempt)
    except LaunchError as error:
        kind = FailureKind.TOO_MANY_FILES if error.code in ("EMFILE", "ENFILE") else FailureKind.DEPENDENCY
        _end_unlaunched(context, attempt, Outcome.CRASHED, kind, one_line(error), now)
    except OvernightError as error:  # the disk refuses, or the base model is gone
        kind = FailureKind.DISK_FULL if error.exit_code == 73 else FailureKind.CONFIG_ERROR
        _end_unlaunched(context, attempt, Outcome.CRASHED, kind, one_line(error), now)
    filing.show_processing(context, job, now)
    context.stand("loading", f"the trainer starts on {job.file}", at=now.unix)


def _start(context: Context, job: Job, plan: Plan, attempt: Attempt) -> None:
    layout = context.layout
    folder = layout.attempt(attempt.id)
    files.make_directory(folder)
    settings = Settings.model_validate(plan.settings)
    manifest = plan.checkpoint.manifest if plan.checkpoint is not None else None
    spec = Spec(
        kind="fit",
        attempt=attempt.id,
        job=job.id,
        workspace=str(layout.root),
        dataset=str(layout.rows(job.dataset or "")),
        dataset_id=job.dataset or "",
        settings=plan.settings,
        base_model=base_models.resolve(layout, settings.base_model),
        base_fingerprint=manifest.fingerprints.get("base_model") if manifest is not None else None,
        start_step=plan.start_step,
        checkpoint=plan.checkpoint.path if plan.checkpoint is not None else None,
        mode=plan.mode,
        seed=seed_of(settings.seed, plan.start_step),
        threads=settings.train.threads or usable_threads(),
        created_at=time.time(),
    )
    attempts.write_spec(folder, spec)
    attempts.touch_watched(folder)
    context.launcher = context.launcher_of(settings.launcher.kind)
    context.launcher.start(
        folder,
        workspace=layout.root,
        record=lambda handle: queue.set_handle(context.connection, attempt.id, handle),
    )


def _end_unlaunched(
    context: Context, attempt: Attempt, outcome: Outcome, kind: FailureKind | None, reason: str, now: Moment
) -> None:
    queue.end_attempt(
        context.connection, attempt.id, outcome=outcome, kind=kind, reason=reason, exit_code=None, signal=None,
        last_step=attempt.first_step, now=now.unix,
    )  # fmt: skip
    if outcome is not Outcome.COMPLETED:
        context.log.error("attempt %s: %s", attempt.id, reason)
