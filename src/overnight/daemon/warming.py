"""A spare trainer kept ready while there is work: the next trainer is forked from it and need not load the libraries.

Where there is none, or it is dead, stopped, stale or unfit, the trainer is started anew. A launch waits for it only
while it loads: loading in the trainer itself would take as long.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from overnight.daemon import planning, wishes
from overnight.daemon.context import Context, Moment
from overnight.database import pauses, queue
from overnight.disk import base_models, claims, files
from overnight.domain import spare as spares
from overnight.domain.attempt import Phase, Spec
from overnight.domain.config import Settings
from overnight.domain.errors import OvernightError
from overnight.domain.spare import Act, State
from overnight.launchers import orphans
from overnight.launchers import spare as launched
from overnight.launchers.base import Launcher, LaunchError
from overnight.launchers.local import Local
from overnight.launchers.spare import Need, Spare

LOOK_EVERY_S = 10.0
"""So often it is seen whether what is loaded is still what is needed."""

REMEMBERED = 64
"""Sessions whose orphans are buried."""


def keep_spare(context: Context, now: Moment) -> None:
    """Start, keep or end the spare trainer."""
    warmth = context.warmth
    orphans.reap_members(warmth.leaders)
    if not warmth.is_swept:
        warmth.is_swept = _sweep(context, now)
    decision = spares.decide(_facts(context, now))
    if decision.act is Act.END and warmth.spare is not None:
        if not warmth.is_told:
            _tell_end(context, warmth.spare.why or decision.reason, now, is_trouble=decision.is_trouble)
            warmth.is_told = True
        if warmth.spare.end():  # else it is frozen, and none is started beside it
            warmth.spare = None
    elif decision.act is Act.START:
        _start(context, now)


def _tell_end(context: Context, why: str, now: Moment, *, is_trouble: bool) -> None:
    warmth = context.warmth
    if is_trouble:
        warmth.troubles, warmth.trouble_at = warmth.troubles + 1, now.boot
        context.record(f"the spare trainer is ended: {why}", kind="spare.lost", level="warning", at=now.unix)
    else:
        context.log.info("the spare trainer is ended: %s", why)


def is_awaited(context: Context) -> bool:
    """Return whether the next launch should wait for the libraries that the spare is loading."""
    spare = context.warmth.spare
    return spare is not None and spare.look() is State.LOADING


def fork(context: Context, launcher: Launcher, spec: Spec, folder: Path, record: Callable[[str], None]) -> str | None:
    """Have the spare fork the trainer of an attempt; return its handle, or None where it is to be started anew."""
    warmth = context.warmth
    spare = warmth.spare
    if spare is None or spec.kind != "fit" or not isinstance(launcher, Local) or spare.look() is not State.READY:
        return None
    if spare.need != _need(launcher, threads=spec.threads, base_model=spec.base_model):
        return None  # the next tick ends it
    handle = spare.fork(folder, record=record, prefix=launcher.prefix)
    if handle is not None:
        launcher.adopt(handle)
        warmth.troubles = 0
        _remember(context, int(handle.split(":")[1]))
    return handle


def _start(context: Context, now: Moment) -> None:
    warmth = context.warmth
    need = _next_need(context, now)
    if need is None or not launched.is_possible() or not _sweep(context, now):
        return
    try:
        spare = warmth.spare = Spare(context.layout, need, gently=context.watched is not None)
        warmth.started_at = now.boot
    except LaunchError as error:
        warmth.troubles, warmth.trouble_at = warmth.troubles + 1, now.boot
        context.log.warning("the spare trainer cannot be started: %s", error.found)
        return
    _remember(context, spare.pid)
    warmth.looked_at, warmth.fits, warmth.is_told = now.boot, True, False
    context.log.info("a spare trainer is started (pid %d)", spare.pid)


def _sweep(context: Context, now: Moment) -> bool:
    """End a spare that an earlier loop left behind; return whether there is none any more."""
    holder = files.lock_holder(context.layout.spare_lock)
    if holder is None:
        return True
    launched.end_leftover(holder)
    message = f"the spare trainer (pid {holder.get('pid', 'unknown')}) of an earlier daemon is ended"
    context.tell("leftover spare", message, kind="spare.leftover", at=now.unix)
    return False


def _facts(context: Context, now: Moment) -> spares.Facts:
    warmth = context.warmth
    spare = warmth.spare
    state = spare.look() if spare is not None else State.NONE
    has_work = _has_work(context)
    if has_work:
        warmth.busy_at = now.boot
    if spare is not None and now.boot - warmth.looked_at > LOOK_EVERY_S:
        warmth.looked_at, needed = now.boot, _next_need(context, now)
        warmth.fits = needed is None or needed == spare.need
    watched = context.watched
    heartbeat = watched.heartbeat if watched is not None else None
    return spares.Facts(
        state=state,
        is_wanted=_is_wanted(context),
        has_work=has_work,
        is_trainer_loading=watched is not None and (heartbeat is None or heartbeat.phase is Phase.LOADING),
        fits=warmth.fits,
        loading_s=now.boot - warmth.started_at,
        load_limit_s=context.limits.watch.load_stuck_s,
        idle_s=now.boot - warmth.busy_at,
        troubles=warmth.troubles,
        last_trouble_s=now.boot - warmth.trouble_at,
    )


def _is_wanted(context: Context) -> bool:
    if context.lost_at is not None or wishes.is_leaving(context.wishes, signals=context.signals):
        return False
    return context.limits.launcher.spare and _launcher(context) is not None


def _launcher(context: Context) -> Local | None:
    """Return the launcher of the next trainer where it can take forked ones."""
    try:
        launcher = context.launcher_of(context.limits.launcher.kind)
    except OvernightError:  # dispatch tells it
        return None
    return launcher if isinstance(launcher, Local) and launcher.takes_forks() else None


def _has_work(context: Context) -> bool:
    """Return whether something is trained, or could be as soon as the libraries are loaded."""
    if context.watched is not None or queue.running(context.connection) is not None:
        return True
    if context.wishes.paused is not None or context.config_problem is not None:
        return False
    if context.wishes.stopped is not None:
        return pauses.last_begun(context.connection) is not None
    return pauses.first_paused(context.connection) is not None or bool(claims.pending(context.layout))


def _next_need(context: Context, now: Moment) -> Need | None:
    """Return what the next trainer is likely to need; None where that cannot be told."""
    launcher = _launcher(context)
    job = queue.running(context.connection) or queue.next_in_line(context.connection, now=now.unix)
    kept = planning.kept(job, context.limits) if job is not None else None
    settings = Settings.model_validate(kept) if kept is not None else context.limits
    if launcher is None:
        return None
    try:
        base = base_models.resolve(context.layout, settings.base_model)
    except OvernightError:  # dispatch tells it
        return None
    return _need(launcher, threads=planning.threads_of(settings), base_model=base)


def _need(launcher: Local, *, threads: int, base_model: str) -> Need:
    return Need(kind=launcher.prefix, threads=threads, base_model=base_model, ground=launched.ground())


def _remember(context: Context, leader: int) -> None:
    """Keep in mind whose orphans are to be buried."""
    leaders = context.warmth.leaders
    leaders[leader] = None
    for old in list(leaders)[:-REMEMBERED]:
        del leaders[old]
