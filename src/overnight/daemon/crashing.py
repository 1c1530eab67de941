"""Attempt that ended badly -> its evidence in crashes/, before the attempt's own folder is tidied.

Evidence is best effort: a disk that refuses it is told of, and the job goes its way all the same.
"""

from __future__ import annotations

from dataclasses import replace

from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.disk import crashes, endings, evidence
from overnight.domain import crash
from overnight.domain.attempt import Attempt, FailureKind, Outcome
from overnight.domain.errors import DiskError
from overnight.domain.facts import Facts


def keep_evidence(context: Context, attempt: Attempt, now: Moment) -> None:
    """Keep what an attempt left, where it crashed, hung or was lost; its job's next state is known by now."""
    folder = context.layout.attempt(attempt.id)
    if attempt.outcome not in crash.BAD:
        hang = evidence.read_hang(folder)
        if hang is None or not hang.get("reason") or str(hang["reason"]) not in attempt.reason:
            return  # it was well, or only suspected for a moment
        attempt = replace(attempt, outcome=Outcome.HUNG, kind=FailureKind.HANG)  # it hung, and saved in the end
    ended = endings.read_ended(folder)
    job = queue.find(context.connection, attempt.job)
    made = crash.of_attempt(attempt, job, ended.facts if ended is not None else Facts())
    try:
        is_new = crashes.keep(context.layout.crashes, folder, attempt.id, made.to_json())
    except (DiskError, OSError) as error:
        message = f"the evidence of attempt {attempt.id} cannot be kept: {error}"
        context.tell("evidence", message, kind="crash.unkept", at=now.unix, attempt=attempt.id)
        return
    context.forget("evidence")
    if is_new:
        context.record(
            f"attempt {attempt.id}: {made.kind.value} at step {made.step}; evidence in crashes/{made.id};"
            f" what helps: {made.remedy}",
            kind="crash", level="warning", at=now.unix, attempt=attempt.id, failure=made.kind.value,
            action=made.action.value,
        )  # fmt: skip
        context.memory["crashes_untidied"] = True
