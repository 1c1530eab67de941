"""A crash, a hang or a loss, as it is listed and kept; and which evidence goes when there is too much."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from overnight.domain import facts as ground
from overnight.domain.attempt import Attempt, FailureKind, Outcome
from overnight.domain.facts import Facts
from overnight.domain.job import Job, JobState
from overnight.domain.picture import iso
from overnight.domain.remedies import Action, remedy_of

SCHEMA = 1
BAD = frozenset({Outcome.CRASHED, Outcome.HUNG, Outcome.LOST})
"""Outcomes that are told as crashes."""

KEEP = 100
"""Crashes whose evidence stays."""

ALIKE = 3
"""Of crashes alike in job, kind and step, so many newest ones stay when room is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """What is told of one crash."""

    id: str  # of the attempt
    at: float  # unix seconds: when it happened, not when it was found
    job: int
    file: str
    attempt: str
    outcome: str  # "crashed" | "hung" | "lost"
    step: int | None  # global
    kind: FailureKind
    signal: str | None  # its name
    exit_code: int | None
    summary: str
    remedy: str
    action: Action
    consequence: str  # what became of the job
    evidence: tuple[str, ...]
    facts: Facts

    def to_json(self) -> dict[str, Any]:
        """Return it as verdict.json and ``crashes --json`` hold it."""
        value = asdict(self)
        return {"schema": SCHEMA, **value, "at": iso(self.at), "at_unix": self.at, "evidence": list(self.evidence)}


def of_attempt(attempt: Attempt, job: Job | None, facts: Facts) -> Crash:
    """Return the crash that an ended attempt was."""
    kind = attempt.kind or (FailureKind.HANG if attempt.outcome is Outcome.HUNG else FailureKind.KILLED_BY_SIGNAL)
    remedy = remedy_of(attempt.kind)
    is_aside = job is not None and job.state is JobState.FAILED
    return Crash(
        id=attempt.id,
        at=attempt.ended_at or attempt.started_at,
        job=attempt.job,
        file=job.file if job is not None else "",
        attempt=attempt.id,
        outcome=attempt.outcome.value if attempt.outcome is not None else "lost",
        step=attempt.last_step,
        kind=kind,
        signal=signal_name(attempt.signal),
        exit_code=attempt.exit_code,
        summary=attempt.reason or "it ended without a word",
        remedy=remedy.words,
        action=Action.SET_ASIDE if is_aside else remedy.action,
        consequence=job.reason if job is not None else "",
        evidence=tuple(_evidence(attempt, facts)),
        facts=facts,
    )


def _evidence(attempt: Attempt, facts: Facts) -> list[str]:
    lines = []
    if attempt.signal is not None:
        lines.append(f"wait status: ended by {signal_name(attempt.signal)}")
    elif attempt.exit_code is not None:
        lines.append(f"wait status: exit code {attempt.exit_code}")
    elif attempt.handle is not None:
        lines.append("wait status: not known, it was not this daemon's child when it ended")
    return [*lines, *ground.in_words(facts)]


def signal_name(number: int | None) -> str | None:
    """Return the name of a signal, such as "SIGKILL"."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Evidence on disk: what a plan needs to know of it."""

    id: str
    at: float
    likeness: tuple[object, ...]  # equal for crashes that are alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """Evidence that goes, and why."""

    id: str
    reason: str


def surplus(kept: Sequence[Kept], *, keep: int = KEEP) -> list[Surplus]:
    """Return what goes so that ``keep`` remain: first the older of many that are alike, then the oldest."""
    excess = len(kept) - keep
    if excess <= 0:
        return []
    gone: list[Surplus] = []
    seen: Counter[tuple[object, ...]] = Counter()
    repeated: list[Kept] = []
    for one in sorted(kept, key=lambda one: (one.at, one.id), reverse=True):
        seen[one.likeness] += 1
        if seen[one.likeness] > ALIKE:
            repeated.append(one)
    for one in reversed(repeated[-excess:]):
        gone.append(Surplus(id=one.id, reason=f"{ALIKE} newer crashes are like it, and {keep} are kept in all"))
    rest = sorted((one for one in kept if one.id not in {item.id for item in gone}), key=lambda one: (one.at, one.id))
    gone += [Surplus(id=one.id, reason=f"{keep} newer ones are kept") for one in rest[: excess - len(gone)]]
    return gone
