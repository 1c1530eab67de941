"""A planned attempt -> its spec on disk, its trainer launched; a refusal ends it and costs the job nothing."""

from __future__ import annotations

from overnight.daemon import facts, filing, gatekeeping, warming
from overnight.daemon.context import Context, Moment
from overnight.daemon.planning import Plan, seed_of, threads_of
from overnight.database import queue
from overnight.disk import attempts, base_models, files
from overnight.domain.attempt import Attempt, FailureKind, Outcome, Spec
from overnight.domain.config import Settings
from overnight.domain.errors import ExitCode, OvernightError
from overnight.domain.job import Job
from overnight.launchers import program
from overnight.launchers.base import LaunchError


def launch(context: Context, job: Job, plan: Plan, now: Moment) -> None:
    """Open the next attempt of a job and start its trainer; one that is complete already ends without."""
    attempt = queue.dispatch(
        context.connection, job.id, settings=plan.settings, start_step=plan.start_step, first_step=plan.first_step,
        reason=plan.reason, now=now.unix,
    )  # fmt: skip
    if attempt is None:
        return  # cancelled in the meantime
    context.forget("dispatch")
    context.forget("adopted")
    _tell_replaced(context, attempt, now)
    context.log.info("%s (job %d), attempt %s: %s", job.file, job.id, attempt.id, plan.reason)
    if plan.mode == "complete":
        _end_unlaunched(context, attempt, Outcome.COMPLETED, None, plan.reason, now)
        return
    try:
        _start(context, job, plan, attempt, now)
    except LaunchError as error:
        kind = FailureKind.TOO_MANY_FILES if error.code in ("EMFILE", "ENFILE") else FailureKind.DEPENDENCY
        _end_unlaunched(context, attempt, Outcome.CRASHED, kind, one_line(error), now)
    except OvernightError as error:  # the disk refuses, or the base model is gone
        kind = FailureKind.DISK_FULL if error.exit_code is ExitCode.CANNOT_WRITE else FailureKind.CONFIG_ERROR
        _end_unlaunched(context, attempt, Outcome.CRASHED, kind, one_line(error), now)
    filing.show_processing(context, job, now)
    context.stand("loading", f"the trainer starts on {job.file}", at=now.unix)


def _start(context: Context, job: Job, plan: Plan, attempt: Attempt, now: Moment) -> None:
    layout = context.layout
    folder = layout.attempt(attempt.id)
    files.make_directory(folder)
    settings = Settings.model_validate(plan.settings)
    counted = queue.accounting(context.connection, job.id)
    spec = Spec(
        kind="fit",
        attempt=attempt.id,
        job=job.id,
        workspace=str(layout.root),
        dataset=str(layout.rows(job.dataset or "")),
        dataset_id=job.dataset or "",
        settings=plan.settings,
        base_model=base_models.resolve(layout, settings.base_model),
        base_fingerprint=plan.base_fingerprint,
        start_step=plan.start_step,
        checkpoint=plan.checkpoint.path if plan.checkpoint is not None else None,
        mode=plan.mode,
        seed=seed_of(settings.seed, plan.start_step),
        threads=threads_of(settings),
        created_at=now.unix,
        left_out=counted.get("left_out", []),
        rehearsal=counted.get("rehearsal", {}).get("sources", []) if settings.train.replay else [],
        held_out=gatekeeping.sets_for(layout, context.connection, job, settings),
    )
    attempts.write_spec(folder, spec)
    attempts.touch_watched(folder)
    facts.note_launch(folder, now)
    context.launcher = launcher = context.launcher_of(settings.launcher.kind)

    def record(handle: str) -> None:
        queue.set_handle(context.connection, attempt.id, handle)

    if warming.fork(context, launcher, spec, folder, record) is None:
        launcher.start(folder, workspace=layout.root, record=record)


def _tell_replaced(context: Context, attempt: Attempt, now: Moment) -> None:
    """Say, once, that the trainers which start now are of another program than the loop that starts them."""
    ours, found = context.program, program.on_disk()
    if found in (ours, context.memory.get("program_told")):
        return
    context.memory["program_told"] = found
    what = (
        f"{ours.version} -> {found.version}" if found.version != ours.version else f"other files, still {ours.version}"
    )
    message = (
        f"the program was replaced under the running daemon ({what}): from attempt {attempt.id} on trainers are of what"
        " lies on the disk now, the daemon is what it was; overnight down and up bring both together"
    )
    context.record(
        message, kind="program.replaced", level="warning", at=now.unix, attempt=attempt.id,
        version=found.version, daemon_version=ours.version,
    )  # fmt: skip


def _end_unlaunched(
    context: Context, attempt: Attempt, outcome: Outcome, kind: FailureKind | None, reason: str, now: Moment
) -> None:
    queue.end_attempt(
        context.connection, attempt.id, outcome=outcome, kind=kind, reason=reason, exit_code=None, signal=None,
        last_step=attempt.first_step, now=now.unix,
    )  # fmt: skip
    if outcome is not Outcome.COMPLETED:
        context.log.error("attempt %s: %s", attempt.id, reason)


def one_line(error: OvernightError) -> str:
    """Return an error as one line for status and log."""
    return "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
