"""The loop: one tick is a short list of steps; read it and you know the daemon.

A step that fails is told when the failure changes, and the next one still runs. The clock is read once a tick.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from overnight.daemon import (
    backing,
    cleanup,
    crashing,
    dispatch,
    intake,
    keeping,
    monitor,
    noticing,
    publish,
    replaying,
    room,
    settings,
    settle,
    versioning,
    warming,
    wishes,
)
from overnight.daemon.context import Context, Moment
from overnight.database import intents, queue
from overnight.database.connection import takes_writes
from overnight.disk import attempts, files

TICK_S = 0.2
STEADY_TICK_S = 0.5
STEADY_AFTER_S = 20.0
"""A trainer that has worked for so long is looked at less often: what ends it rings the bell all the same."""

PROBE_S = 1.0
LOST_LIMIT_S = 120.0
"""A workspace that went away is left after so long, whatever could not be ended in it."""

Step = Callable[[Context, Moment], None]


def read_wishes(context: Context, now: Moment) -> None:
    """Read what the operator wants."""
    context.wishes = wishes.read(context.connection)


def leave(context: Context, now: Moment) -> None:
    """End the loop where that is wanted and nothing of ours runs any more."""
    if not wishes.is_leaving(context.wishes, signals=context.signals):
        return
    if context.lost_at is not None and now.boot - context.lost_at > LOST_LIMIT_S:
        context.is_over = True  # whatever still hangs on a workspace that is gone: a trainer leaves by itself
        return
    if _has_work(context):
        if now.boot < context.memory.get("probe_at", 0.0) or files.lock_holder(context.layout.model_lock) is not None:
            return
        context.memory["probe_at"] = now.boot + PROBE_S
        if not takes_writes(context.connection):
            context.log.error(
                "the daemon ends; the disk takes no last word of it, the next start draws the consequences"
            )
            context.is_over = True
        return
    why = "down" if context.wishes.down else "a signal" if context.lost_at is None else "the workspace is gone"
    context.record(f"the daemon ends ({why})", kind="daemon.stop", at=now.unix)
    context.is_over = True  # whatever comes now: a disk that takes no more words must keep nobody here
    if not context.memory.get("unmounted"):  # else the watchdog is to start it again when the disk is back
        intents.withdraw(context.connection, "up")
    intents.withdraw(context.connection, "down")
    context.stand("stopped", "the daemon ended on purpose", at=now.unix)
    publish.publish(context, now)
    noticing.look_last(context, now)


def _has_work(context: Context) -> bool:
    if queue.open_attempts(context.connection):
        return True
    return context.lost_at is None and bool(queue.unsettled_attempts(context.connection))


STEPS: tuple[tuple[str, Step], ...] = (
    ("wishes", read_wishes),
    ("settings", settings.reread),
    ("monitor", monitor.watch_attempts),
    ("replay", replaying.watch_replay),
    ("settle", settle.settle_attempts),
    ("intake", intake.take_settled),
    ("warm", warming.keep_spare),
    ("version", versioning.make_wished_version),
    ("room", room.watch_room),
    ("dispatch", dispatch.dispatch_next),
    ("crashes", crashing.keep_crashes),
    ("folders", noticing.notice_changes),
    ("cleanup", cleanup.tidy),
    ("backup", backing.keep_copies),
    ("log", publish.pump_log),
    ("publish", publish.publish),
    ("guard", keeping.keep_guards),
    ("leave", leave),
)


def tick(context: Context) -> None:
    """Do every step once."""
    now = Moment(unix=time.time(), boot=attempts.boot_time())
    for name, step in STEPS:
        context.beat.say(name, at=now.boot)
        try:
            step(context, now)
        except Exception as error:  # the border of a step: whatever it is, the next one still runs
            _tell_failure(context, name, error, now)
        else:
            context.forget(f"step {name}")


def _tell_failure(context: Context, name: str, error: Exception, now: Moment) -> None:
    shown = f"{type(error).__name__}: {error}"
    message = f"the step '{name}' failed and is tried again: {shown}"
    if context.tell(f"step {name}", message, kind="daemon.step_failed", level="error", at=now.unix):
        context.log.error("%s", traceback.format_exc())


def run(context: Context) -> None:
    """Tick until it is over."""
    while True:
        tick(context)
        if context.is_over:
            return
        context.beat.say("waits", at=attempts.boot_time())
        context.bell.wait(_pause_s(context), also=_exit_descriptor(context), or_else=_spare_descriptor(context))


def _pause_s(context: Context) -> float:
    watched = context.watched
    is_steady = watched is not None and watched.stop is None and watched.ticked_at - watched.begun_at > STEADY_AFTER_S
    return STEADY_TICK_S if is_steady else TICK_S


def _exit_descriptor(context: Context) -> int | None:
    """Return what becomes readable when the trainer ends: that is seen at once, not at the next tick."""
    watched = context.watched
    if watched is None or watched.handle is None or context.launcher is None:
        return None
    try:
        return context.launcher.exit_descriptor(watched.handle)
    except OSError:  # no handle is left for it: the next tick sees the end all the same
        return None


def _spare_descriptor(context: Context) -> int | None:
    """Return what becomes readable when the spare trainer has loaded: a job may wait for that."""
    spare = context.warmth.spare
    return spare.descriptor() if spare is not None else None
