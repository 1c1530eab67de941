"""Queued job -> attempt launched, after everything that speaks against it was looked at.

In reading order: is something running, does the operator want it, are the settings sound and the locked ones as they
were, is there space, is the device free; then the newest verified checkpoint is read, and it decides how the job
goes on.
"""

from __future__ import annotations

from pathlib import Path

from overnight import starting
from overnight.daemon import (
    aside,
    gatekeeping,
    holding,
    launching,
    locks,
    orphans,
    planning,
    rehearsing,
    room,
    versioning,
    warming,
    wishes,
)
from overnight.daemon.context import Context, Moment
from overnight.database import pauses, queue
from overnight.disk import checkpoints, files, folder_lock, locked, ownership
from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.errors import ConfigError
from overnight.domain.job import Job, JobState
from overnight.domain.locked import locked_keys_changed, refused, unreadable_lock
from overnight.domain.retry import LONGEST_PAUSE_S, keeps_its_turn
from overnight.domain.start import Start
from overnight.status import holders

RECHECK_S = 10.0
"""So often checkpoints that could not be used are read again."""

UNREADABLE_S = 30.0
"""So long a checkpoint that the disk refuses to read is tried before work goes on from an older one."""


def dispatch_next(context: Context, now: Moment) -> None:
    """Launch the next attempt where nothing speaks against it; else say what does."""
    job = _next_job(context, now)
    if job is None:
        context.errands.forget("newest")  # when work goes on, the disk may be another one
        context.memory.pop("unreadable", None)
        return
    if not rehearsing.is_decided(context, job, now):
        context.stand("loading", f"earlier data sets are read: {job.file} replays rows of them", at=now.unix)
        return
    found = _find_start(context, now)
    if found is not None:
        _set_aside(context, found, now)
        again, _ = _choose(context, now)  # what was read may differ from what it looked like
        if again is not None and again.id == job.id:
            _launch(context, job, found.newest, now)


def _launch(context: Context, job: Job, newest: CheckpointReport | None, now: Moment) -> None:
    """Launch under the lock that whoever removes checkpoints holds: nothing starts on what is being removed."""
    lock = files.Lock(context.layout.checkpoints_lock)
    if not lock.acquire(holder=locks.holder(now.unix)):
        other = files.lock_holder(lock.path) or {}
        what = other.get("what") or "old checkpoints are being removed"
        _wait(context, f"{what} (pid {other.get('pid', 'unknown')}); waiting for its end", now)
        return
    try:
        if not _is_still_newest(context, newest):
            context.errands.forget("newest")
            return  # a job that was kept aside has just been accepted: the next tick reads it
        if not versioning.is_as_planned(context, context.limits.base_model):
            return  # another version came into use since the settings were read: the next tick reads them
        version = starting.version_begun(context.layout) if newest is None else None
        is_judged = gatekeeping.is_to_be_judged(context.layout, context.connection, job)
        plan = planning.plan_of(job, newest, context.limits, version=version, is_judged=is_judged)
        launching.launch(context, job, plan, now)
    finally:
        lock.release()


def _is_still_newest(context: Context, newest: CheckpointReport | None) -> bool:
    """Return whether the model still stands where it stood when it was read."""
    now = checkpoints.newest_complete(context.layout.model)
    # by its manifest: after a rollback another one may stand at the same step
    return (now.manifest if now is not None else None) == (newest.manifest if newest is not None else None)


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
    hindrance = versioning.why_wait(context) or _hindrance(context, now) or holding.why_wait(context, job, now)
    if hindrance is not None:
        _wait(context, hindrance, now)
        return None
    if warming.is_awaited(context):
        context.stand("loading", f"the libraries are loaded, then {job.file} is trained", at=now.unix)
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
    lost or trained twice. So does one that was killed before its first checkpoint: were another one trained in its
    pause, the model would be another one. With "stop" only the last begun one is finished.
    """
    current = _current(context)
    if current is None and context.wishes.stopped is None:
        avoid = holding.jobs_to_avoid(context)
        job = queue.next_in_line(context.connection, now=now.unix, avoid=avoid) if avoid else None
        job = job or queue.next_in_line(context.connection, now=now.unix)
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
        if job is not None and job.state is JobState.QUEUED and planning.is_own(newest.manifest, job):
            return job
    begun = pauses.last_begun(context.connection)
    if begun is None or context.wishes.stopped is not None:
        return begun
    return begun if keeps_its_turn(queue.attempts_since_submit(context.connection, begun.id)) else None


def _hindrance(context: Context, now: Moment) -> str | None:
    """Return what speaks against a launch, cheap things first."""
    if context.config_problem is not None:
        return f"config.json is refused: {launching.one_line(context.config_problem)}"
    known = locked.read(context.layout)
    if not known.readable:
        return unreadable_lock().message
    changed = locked_keys_changed(context.limits, known)
    if changed:
        return launching.one_line(refused(changed))
    needed = context.limits.disk.min_free_gb * 1e9
    free = files.free_bytes(context.layout.root)
    if free < needed:
        return (
            f"the disk is nearly full: {free / 1e9:.2f} GB are free, disk.min_free_gb is"
            f" {context.limits.disk.min_free_gb:g}; goes on by itself when there is space"
        )
    moving = aside.why_wait(context)
    if moving is not None:
        return moving
    no_room = room.hindrance(context)
    if no_room is not None:
        return no_room
    holder = files.lock_holder(context.layout.model_lock)
    if holder is not None:
        pid = holder.get("pid", "unknown")
        if orphans.end_orphan(context, holder, now):
            return (
                f"a trainer that is left over (pid {pid}) holds the model and is ended; frozen, it ends when it thaws"
            )
        return f"{holders.holder_of_model(context.layout)}; waiting until it has ended"
    return _foreign_hold(context)


def _foreign_hold(context: Context) -> str | None:
    """Return how another workspace or machine has to do with our model folder, which must be ours alone."""
    try:
        ownership.require_own_folders(context.layout)
    except ConfigError as error:
        return launching.one_line(error)
    if not folder_lock.is_locked(context.layout.model):
        return None
    keepers = holders.keeping({}, context.layout.model) or "somebody"
    return f"{keepers}: a trainer of another workspace works in {context.layout.model.name}/; waiting for its end"


def _find_start(context: Context, now: Moment) -> Start | None:
    """Return where the next job starts from; None while that is read, or while something speaks against it."""
    if now.boot < context.memory.get("recheck_at", 0.0):
        return None
    layout, base_model, committed = (
        context.layout,
        context.limits.base_model,
        starting.ever_committed(context.layout, context.connection),
    )
    answer = context.errands.ask(
        "newest", lambda: starting.find(layout, base_model=base_model, ever_committed=committed)
    )
    if answer is None:
        return None
    found = answer.value
    hindrance = launching.one_line(refused(found.hindrances)) if found.hindrances else _unreadable(context, found, now)
    if hindrance is None:
        return found
    _wait(context, hindrance, now)
    context.memory["recheck_at"] = now.boot + RECHECK_S
    return None


def _unreadable(context: Context, found: Start, now: Moment) -> str | None:
    """Return which checkpoint the disk refuses to read, while that may still pass: nothing is known to be damaged."""
    unread = next((report for report in found.passed_over if report.is_unreadable), None)
    if unread is None:
        context.memory.pop("unreadable", None)
        return None
    path, since = context.memory.get("unreadable", (unread.path, now.boot))
    if path != unread.path:  # each has its own time
        since = now.boot
    context.memory["unreadable"] = (unread.path, since)
    if now.boot - since >= UNREADABLE_S:
        return None
    return f"{Path(unread.path).name} is tried again before an older one is taken: {unread.reason}"


def _set_aside(context: Context, found: Start, now: Moment) -> None:
    """Move newer checkpoints that cannot be trusted out of the way; nothing of them is deleted."""
    if found.newest is None:
        return
    goes_on = f"work goes on from {Path(found.newest.path).name}"
    for report in found.passed_over:
        name = Path(report.path).name
        if report.verdict is Verdict.FOREIGN:  # somebody put it there: it is left where it is
            told = f"{name} is passed over, it is foreign: {report.reason}; {goes_on}"
            context.tell(f"foreign {name}", told, kind="checkpoint.passed_over", at=now.unix, step=report.step)
            continue
        resting = checkpoints.set_aside(Path(report.path), context.layout.trash)
        context.record(
            f"{name} is set aside, it is {report.verdict.value}: {report.reason}; {goes_on}",
            kind="checkpoint.set_aside", level="error", at=now.unix, step=report.step, trash=str(resting),
        )  # fmt: skip
