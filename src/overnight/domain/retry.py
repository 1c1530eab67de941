"""What follows a failed attempt: the next one after a pause, or the job is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.attempt import Attempt, FailureKind, Outcome
from overnight.domain.failure import is_from_outside
from overnight.domain.remedies import ENVIRONMENT, Action, remedy_of

SAME_CRASH_LIMIT = 3
"""So many crashes in a row, equal in kind and step, are the job's own doing."""

LONGEST_PAUSE_S = 60.0

TURN_LIMIT = 5
"""So many interruptions in a row without a step made safe, and others need not wait for a job any longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Launch the job once more, not before a moment."""

    not_before: float  # unix seconds
    charge: bool  # it costs the job one of its tries
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Set the job aside."""

    charge: bool
    reason: str


def decide(
    history: Sequence[Attempt],
    *,
    checkpoint: int | None,
    charged: bool,
    charged_before: int,
    max_attempts: int,
    now: float,
    repair: str | None = None,
    is_shared: bool = False,
) -> Again | GiveUp:
    """Judge a job by its ended attempts, oldest first; the last one has just failed.

    ``checkpoint`` is the newest commit that the last attempt left (global step), ``charged`` says that its failure was
    the job's own fault, ``charged_before`` how many of those there were already. ``repair`` says what the next attempt
    does otherwise, where something can be done; ``is_shared``, that other jobs met the same failure at their start.
    """
    last = history[-1]
    why = last.reason or "the attempt failed"
    if repair is not None:
        return Again(not_before=now, charge=False, reason=f"tried again at once, {repair}: {why}")
    if is_shared and not charged:
        pause_s = _pause_s(last, streak=_fruitless(history, checkpoint=checkpoint))
        reason = f"other jobs meet the same failure, so it is not this file's; tried again in {pause_s:g} s: {why}"
        return Again(not_before=now + pause_s, charge=False, reason=reason)
    if charged and charged_before + 1 >= max_attempts:
        return GiveUp(charge=True, reason=f"given up after {charged_before + 1} tries: {why}")
    same = _same_crashes(history)
    if same >= SAME_CRASH_LIMIT:
        step = f" at step {last.last_step}" if last.last_step is not None else ""
        return GiveUp(charge=charged, reason=f"given up: the same crash{step} {same} times in a row: {why}")
    fruitless = _fruitless(history, checkpoint=checkpoint)
    if remedy_of(last.kind).action is Action.SMALLER_BATCH and fruitless >= SAME_CRASH_LIMIT:
        return GiveUp(charge=charged, reason=f"given up: {fruitless} times in a row, with nothing gained: {why}")
    pause_s = _pause_s(last, streak=fruitless)
    when = "at once" if pause_s == 0 else f"in {pause_s:g} s"
    waits = "waits for the machine to be mended; tried again" if last.kind in ENVIRONMENT else "tried again"
    return Again(not_before=now + pause_s, charge=charged, reason=f"{waits} {when}: {why}")


def keeps_its_turn(history: Sequence[Attempt]) -> bool:
    """Return whether a job that was interrupted goes first when its pause is over, and others wait for it.

    Were another one trained in its short pause, the order of the rows, and so the model, would hang on who was killed
    when. A failure that the data may have caused never holds up others.
    """
    if not history or not _is_interruption(history[-1]):
        return False
    streak = 0
    for attempt in reversed(history):
        if not _is_interruption(attempt) or attempt.first_step != history[-1].first_step:
            break
        streak += 1
    return streak <= TURN_LIMIT


def _is_interruption(attempt: Attempt) -> bool:
    """Return whether a process died or hung, without a word on why."""
    return attempt.outcome in (Outcome.LOST, Outcome.HUNG) or attempt.kind in (
        FailureKind.KILLED_BY_SIGNAL, FailureKind.SEGFAULT
    )  # fmt: skip


def _pause_s(last: Attempt, *, streak: int) -> float:
    """Return 0, 1, 2, 4 ... 60 s for what comes from outside, 1, 2, 4 ... 60 s for the rest."""
    power = streak - 2 if is_from_outside(last) else streak - 1
    return 0.0 if power < 0 else min(LONGEST_PAUSE_S, 2.0 ** min(power, 16))


def _same_crashes(history: Sequence[Attempt]) -> int:
    """Return how many attempts in a row, the last one among them, ended in the same crash at the same step."""
    last = history[-1]
    if is_from_outside(last) or last.kind in ENVIRONMENT or last.last_step is None:
        return 0
    if last.outcome is Outcome.HUNG and last.last_step == last.first_step:
        return 0  # nothing was trained yet: a hang while loading says nothing about the data
    count = 0
    for attempt in reversed(history):
        if is_from_outside(attempt):
            continue  # an interruption between two equal crashes does not make them differ
        if _signature(attempt) != _signature(last):
            break
        count += 1
    return count


def _signature(attempt: Attempt) -> tuple[Outcome | None, FailureKind | None, int | None, int | None]:
    return attempt.outcome, attempt.kind, attempt.signal, attempt.last_step


def _fruitless(history: Sequence[Attempt], *, checkpoint: int | None) -> int:
    """Return how many failures in a row, the last one among them, left no new checkpoint behind."""
    count = 0
    reached = checkpoint
    for attempt in reversed(history):
        if count and (attempt.outcome in (Outcome.PREEMPTED, Outcome.COMPLETED) or _advanced(attempt, reached)):
            break
        count += 1
        if count == 1 and _advanced(attempt, reached):
            break
        reached = attempt.first_step
    return count


def _advanced(attempt: Attempt, reached: int | None) -> bool:
    return reached is not None and attempt.first_step is not None and reached > attempt.first_step
