"""Whether the whole queue is to wait: what stops different jobs alike, at their start, is not the files' fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.attempt import Attempt, FailureKind, Outcome
from overnight.domain.failure import is_from_outside
from overnight.domain.remedies import ENVIRONMENT, Action, remedy_of

LONGEST_PAUSE_S = 60.0
QUICK_TRIES = 3
"""So often a job that the kernel killed for want of memory is tried again before it waits for memory."""

LONGEST_WAIT_S = 600.0
"""After so long it is tried again even where the memory looks too small: what it needs is an estimate."""

MORE = 1.1
"""Who was killed for want of memory wanted more than it held: so many times as much is to be there."""

_OWN = frozenset({Action.SET_ASIDE, Action.LAST_CHECKPOINT, Action.NONE})
_PARTICULAR = re.compile(r"0x[0-9a-fA-F]+|\d+|/[^\s;,'\"]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The queue waits."""

    until: float  # unix seconds
    reason: str


def failed_at_start(attempt: Attempt) -> bool:
    """Return whether an attempt failed before its first step, or of the machine, and nothing blames its data."""
    if attempt.outcome not in (Outcome.CRASHED, Outcome.HUNG) or is_from_outside(attempt):
        return False
    if attempt.kind in ENVIRONMENT:
        return True
    is_before = attempt.last_step is None or attempt.last_step == attempt.first_step
    return is_before and remedy_of(attempt.kind).action not in _OWN


def likeness(attempt: Attempt) -> tuple[object, ...]:
    """Return what is equal for failures that are the same: numbers and paths in their words do not count."""
    return attempt.outcome, attempt.kind, attempt.signal, _PARTICULAR.sub("#", attempt.reason)[:200]


def alike(newest: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts in a row, newest first, that failed at their start in the same way."""
    found: list[Attempt] = []
    for attempt in newest:
        if is_from_outside(attempt):
            continue
        if not failed_at_start(attempt) or (found and likeness(attempt) != likeness(found[0])):
            break
        found.append(attempt)
    return found


def is_shared(newest: Sequence[Attempt]) -> bool:
    """Return whether the newest failure is one that another job met as well."""
    return len({attempt.job for attempt in alike(newest)}) > 1


def failing_alike(newest: Sequence[Attempt]) -> frozenset[int]:
    """Return the jobs that failed alike; others are tried before them: one that trains proves that it was the files."""
    found = frozenset(attempt.job for attempt in alike(newest))
    return found if len(found) > 1 else frozenset()


def judge(newest: Sequence[Attempt], *, now: float) -> Hold | None:
    """Return why nothing is to be launched now, from the newest ended attempts of all jobs, newest first."""
    same = alike(newest)
    jobs = {attempt.job for attempt in same}
    if len(jobs) < 2:
        return None
    last = same[0]
    until = (last.ended_at or last.started_at) + min(LONGEST_PAUSE_S, 2.0 ** min(len(same) - 1, 16))
    if now >= until or until - now > 2 * LONGEST_PAUSE_S:  # the second: the clock was set back
        return None
    reason = (
        f"the same failure stops {len(jobs)} jobs at their start, so it is not their data:"
        f" {last.reason}; what helps: {remedy_of(last.kind).words}"
    )
    return Hold(until=until, reason=reason)


def wait_for_memory(
    history: Sequence[Attempt], *, needed_bytes: int | None, available_bytes: int | None, now: float
) -> str | None:
    """Return why a job waits for memory, from its own attempts, oldest first; None where it may be tried."""
    streak = 0
    for attempt in reversed(history):
        if attempt.kind is not FailureKind.HOST_OOM:
            break
        if streak and attempt.last_step != attempt.first_step and _went_on(attempt, history):
            break
        streak += 1
    if streak < QUICK_TRIES or needed_bytes is None or available_bytes is None:
        return None
    if available_bytes >= MORE * needed_bytes:
        return None
    if now - (history[-1].ended_at or 0.0) >= LONGEST_WAIT_S:
        return None
    return (
        f"waiting for memory: {available_bytes / 1e9:.2f} GB are available, and the trainer held"
        f" {needed_bytes / 1e9:.2f} GB when it was killed for want of it; {remedy_of(FailureKind.HOST_OOM).words}"
        " Goes on by itself"
    )


def _went_on(attempt: Attempt, history: Sequence[Attempt]) -> bool:
    """Return whether the attempt after this one began beyond it: a checkpoint was gained."""
    after = [one.first_step for one in history if one.number == attempt.number + 1]
    return bool(after) and (after[0] or 0) > (attempt.first_step or 0)
