"""Is a recovery exact? Steps that an attempt trains again are compared with what the attempts before it told of them.

Looked at as soon as the attempt has passed the point where the earlier one ended, and once more when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from overnight.daemon.context import Context, Moment
from overnight.database import events, queue
from overnight.disk import attempts
from overnight.disk.layout import Layout
from overnight.domain.attempt import Attempt, AttemptState
from overnight.domain.replay import Difference, by_step, first_difference

LINES = 20_000
"""So many of the last numbers of an attempt are looked at: more than lies between two checkpoints."""

EARLIER = 10
"""So many earlier attempts of the job are looked at."""

OF_ITS_OWN = ("attempt", "mode", "checkpoint", "base_fingerprint", "created_at")
"""What differs between the specs of two attempts that do the same work."""


def watch_replay(context: Context, now: Moment) -> None:
    """Compare the working attempt once it has passed the end of the one before it."""
    watched = context.watched
    if watched is None or watched.heartbeat is None or context.memory.get("replayed") == watched.attempt:
        return
    attempt = queue.find_attempt(context.connection, watched.attempt)
    if attempt is None or attempt.number == 1:
        context.memory["replayed"] = watched.attempt
        return
    earlier = _earlier(context, attempt)
    if watched.heartbeat.step <= max((past.last_step or 0 for past in earlier), default=0):
        return
    numbers = [past.id for past in earlier]
    answer = context.errands.ask(f"replay {attempt.id}", lambda: _first_difference(context.layout, attempt, numbers))
    if answer is not None:
        context.memory["replayed"] = watched.attempt
        _tell(context, attempt, answer.value, now)


def compare_ended(context: Context, attempt: Attempt, now: Moment) -> None:
    """Compare an attempt that has ended."""
    earlier = [past.id for past in _earlier(context, attempt)]
    if earlier:
        _tell(context, attempt, _first_difference(context.layout, attempt, earlier), now)


def _earlier(context: Context, attempt: Attempt) -> list[Attempt]:
    """Return the attempts of its job before this one, newest first."""
    since = queue.attempts_since_submit(context.connection, attempt.job)
    past = [one for one in since if one.number < attempt.number and one.state is AttemptState.ENDED]
    return past[::-1][:EARLIER]


def _first_difference(layout: Layout, attempt: Attempt, earlier: list[str]) -> Difference | None:
    after = attempt.first_step or 0
    before: dict[int, Mapping[str, Any]] = {}
    ours = _work_of(layout, attempt.id)
    for past in earlier:
        if ours is not None and _work_of(layout, past) == ours:
            lines = by_step(attempts.read_metrics(layout.attempt(past), limit=LINES), after=after)
            before = {**lines, **before}  # the newest one that told of a step is the one to be equal to
    if not before:
        return None
    return first_difference(
        before, by_step(attempts.read_metrics(layout.attempt(attempt.id), limit=LINES), after=after)
    )


def _work_of(layout: Layout, attempt: str) -> dict[str, Any] | None:
    """Return what an attempt was to do, or None where nothing tells: other work gives other numbers."""
    try:
        spec = asdict(attempts.read_spec(layout.attempt(attempt)))
    except (OSError, ValueError):
        return None
    return {name: value for name, value in spec.items() if name not in OF_ITS_OWN}


def _tell(context: Context, attempt: Attempt, found: Difference | None, now: Moment) -> None:
    """Say it loudly, and once, whichever loop finds it."""
    if found is None:
        return
    last = events.newest_of(context.connection, "attempt.not_exact")
    if last is not None and last["data"].get("attempt") == attempt.id:
        return
    message = (
        f"CRITICAL: attempt {attempt.id} is no exact recovery: {found.reason}. Something computes otherwise each time:"
        " an operation that is not deterministic, faulty memory or GPU, or a library changed in between"
    )
    context.record(
        message, kind="attempt.not_exact", level="error", at=now.unix, attempt=attempt.id, job=attempt.job,
        step=found.step, name=found.name, before=found.before, again=found.again,
    )  # fmt: skip
