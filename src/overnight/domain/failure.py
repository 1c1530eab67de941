"""What an ended attempt died of: the report first, then what the kernel says, then what was seen of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.attempt import Attempt, FailureKind, Outcome, Report
from overnight.domain.errors import ExitCode

OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that somebody else sends: they say nothing about the job."""

CANNOT_EXECUTE = (126, 127)
"""What a shell leaves with when the program is not there or cannot be run."""


class EndedBy(StrEnum):
    """Whether the daemon had a hand in the end."""

    ITSELF = "itself"  # or somebody unknown
    WISH = "wish"  # it was asked to leave, and killed where it did not
    STUCK = "stuck"  # it made no progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of an ended attempt."""

    report: Report | None
    exit_code: int | None
    signal: int | None
    launched: bool  # its process was let go
    heard: bool  # it left at least one heartbeat
    ended_by: EndedBy
    reason: str  # why the daemon ended it; "" where it did not


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of an attempt, fit to be stored."""

    outcome: Outcome
    kind: FailureKind | None
    reason: str
    charged: bool = False


def classify(evidence: Evidence) -> Ending:
    """Judge an ended attempt. The trainer's report outranks everything else."""
    if evidence.report is not None:
        report = evidence.report
        return Ending(
            outcome=report.outcome, kind=report.kind, reason=_one_line(report.message), charged=report.charged
        )
    if not evidence.launched:
        return Ending(outcome=Outcome.LOST, kind=None, reason="the daemon ended before it had launched the trainer")
    if evidence.ended_by is EndedBy.STUCK:
        return Ending(outcome=Outcome.HUNG, kind=FailureKind.HANG, reason=evidence.reason)
    if evidence.ended_by is EndedBy.WISH and _left_as_asked(evidence):
        return Ending(outcome=Outcome.PREEMPTED, kind=None, reason=f"ended without saving: {evidence.reason}")
    if evidence.signal is not None:
        return _signalled(evidence.signal)
    if evidence.exit_code is None:
        return Ending(outcome=Outcome.LOST, kind=None, reason="the trainer is gone, and nothing tells how it ended")
    return _left(evidence.exit_code, heard=evidence.heard)


def _left_as_asked(evidence: Evidence) -> bool:
    """Return whether an end fits the wish: one of our signals, or nothing that speaks against it."""
    if evidence.signal is not None:
        return evidence.signal in OUTSIDE_SIGNALS
    return evidence.exit_code in (None, ExitCode.BUSY)


def _signalled(number: int) -> Ending:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number in OUTSIDE_SIGNALS:
        kind, why = FailureKind.KILLED_BY_SIGNAL, f"the trainer was killed by {name} from outside"
    elif number in (signal.SIGSEGV, signal.SIGBUS):
        kind, why = FailureKind.SEGFAULT, f"the trainer died of {name}: a memory fault in native code"
    else:
        kind, why = FailureKind.KILLED_BY_SIGNAL, f"the trainer died of {name}"
    return Ending(outcome=Outcome.CRASHED, kind=kind, reason=why)


def _left(exit_code: int, *, heard: bool) -> Ending:
    if exit_code in CANNOT_EXECUTE or not heard:
        reason = f"the trainer could not start (exit code {exit_code}); its log in logs/trainer.log says why"
        return Ending(outcome=Outcome.CRASHED, kind=FailureKind.DEPENDENCY, reason=reason)
    reason = f"the trainer left with exit code {exit_code} and without a report"
    return Ending(outcome=Outcome.CRASHED, kind=FailureKind.CODE_ERROR, reason=reason)


def is_from_outside(attempt: Attempt) -> bool:
    """Return whether an ended attempt's end says nothing about its job."""
    if attempt.outcome in (Outcome.LOST, Outcome.PREEMPTED):
        return True
    return attempt.kind is FailureKind.KILLED_BY_SIGNAL and attempt.signal in OUTSIDE_SIGNALS


def _one_line(message: str) -> str:
    """Return a message of several lines as the one line that queue, history and status show."""
    return "; ".join(" ".join(line.split()) for line in message.splitlines() if line.strip())
