"""What the loop has to do with versions: it ends a change that was begun, and sees that a wished version is made.

The version is made by a process of its own (consolidation.py), once no job is in the middle; until then, and while it
is made, nothing new is launched.
"""

from __future__ import annotations

from overnight.daemon.context import Context, Moment
from overnight.database import events, intents, pauses, queue
from overnight.disk import attempts, files, locked
from overnight.domain.errors import ExitCode
from overnight.domain.picture import doing
from overnight.domain.version import MAKING
from overnight.launchers import guards
from overnight.launchers.base import LaunchError
from overnight.publishing import settling
from overnight.publishing.grounds import half_trained

HELPER = "consolidation"
AGAIN_S = 1.0
DEATHS_LIMIT = 3
"""A process that dies so often in a row without a word is not tried again: the wish is taken back, and told."""


def make_wished_version(context: Context, now: Moment) -> None:
    """End what was begun; start the process that makes a version where one is wished, and hear how it ended."""
    if context.lost_at is not None:
        return
    if not files.lock_holder(context.layout.checkpoints_lock):
        settling.settle_if_possible(context.layout, context.connection)
    child = context.helpers.get(HELPER)
    if child is not None:
        if context.wishes.down or context.signals:
            child.terminate()  # before its plan is written nothing has changed, afterwards the next start ends it
        code = child.poll()
        if code is None:
            return
        del context.helpers[HELPER]
        _note_end(context, code, now)
    if _may_begin(context, now):
        _begin(context, now)


def why_wait(context: Context) -> str | None:
    """Return why no attempt may be launched because of versions, None where it may."""
    layout = context.layout
    holder = files.lock_holder(layout.checkpoints_lock)
    if holder is not None and holder.get("what"):
        beat = attempts.read_heartbeat(layout.consolidation) if holder["what"] == MAKING else None
        how = f": {doing(beat)}" if beat is not None and doing(beat) else ""
        return f"{holder['what']}{how} (pid {holder.get('pid', 'unknown')})"
    if layout.transition.exists():
        return "a version change that was begun is brought to its end"
    if context.wishes.version is not None and not _is_in_a_job(context):
        return "a version is made first, as was wished"
    return None


def is_as_planned(context: Context, base_model: str) -> bool:
    """Return whether the base model is still the one that a plan was made for: a version may have come into use."""
    known = locked.read(context.layout).values.get("base_model", base_model)
    return bool(known == base_model) and not context.layout.transition.exists()


def _may_begin(context: Context, now: Moment) -> bool:
    if context.wishes.version is None or context.wishes.down or context.signals:
        return False
    if now.boot < context.memory.get("version_at", 0.0):
        return False
    if queue.open_attempts(context.connection) or queue.unsettled_attempts(context.connection):
        return False
    if files.lock_holder(context.layout.checkpoints_lock) is not None:
        return False
    return not _is_in_a_job(context)


def _is_in_a_job(context: Context) -> bool:
    """Return whether a job was begun that is not over: it goes first, and the version is made behind it."""
    if half_trained(context.layout, context.connection) is not None:
        return True
    return pauses.last_begun(context.connection) is not None


def _begin(context: Context, now: Moment) -> None:
    context.memory["version_at"] = now.boot + AGAIN_S
    try:
        context.helpers[HELPER] = guards.start_consolidation(context.layout)
        context.forget(HELPER)
    except LaunchError as error:
        told = f"the process that makes a version cannot be started: {error.found}"
        context.tell(HELPER, told, kind="version.waiting", at=now.unix)


def _note_end(context: Context, code: int, now: Moment) -> None:
    """Hear how the process ended; where it dies again and again, take the wish back."""
    context.memory["version_at"] = now.boot + AGAIN_S
    if code in (ExitCode.OK, ExitCode.BUSY):
        context.memory["version_deaths"] = 0
        return
    deaths = context.memory["version_deaths"] = context.memory.get("version_deaths", 0) + 1
    standing = intents.standing(context.connection).get(settling.WISH)
    if standing is None or context.wishes.down or context.signals or deaths < DEATHS_LIMIT:
        return
    context.memory["version_deaths"] = 0
    events.record(
        context.connection, now=now.unix, kind="version.failed", level="error", wish=standing.value.get("token"),
        message=f"no version is made: its process died {deaths} times (exit code {code}); see logs/daemon.log",
    )  # fmt: skip
    intents.withdraw(context.connection, settling.WISH)
