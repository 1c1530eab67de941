"""What an ended attempt died of: the kernel's facts, the trainer's report, then the log, then what was seen of it.

Order of belief: a report says what happened inside; a machine that was started again and a kill for want of memory are
the kernel's word and explain a missing report; then the signal or exit code; the log only where all of them are silent.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from enum import StrEnum

from overnight.domain import facts as ground
from overnight.domain.attempt import Attempt, FailureKind, Outcome, Report
from overnight.domain.errors import ExitCode
from overnight.domain.facts import Facts

K = FailureKind

OUTSIDE_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that somebody else sends: they say nothing about the job."""

CANNOT_EXECUTE = (126, 127)
"""What a shell leaves with when the program is not there or cannot be run."""

ECHOES = frozenset({K.CODE_ERROR, K.MULTIPROCESSING})
"""What a report may call a death in memory when only a helper process was hit."""


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
    facts: Facts = field(default_factory=Facts)
    log_kind: FailureKind | None = None  # what its log speaks of; asked for only where there is no report
    log_line: str = ""  # the line that says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of an attempt, fit to be stored."""

    outcome: Outcome
    kind: FailureKind | None
    reason: str
    charged: bool = False


def classify(evidence: Evidence) -> Ending:
    """Judge an ended attempt."""
    if evidence.report is not None:
        return _reported(evidence.report, evidence.facts)
    if not evidence.launched:
        return Ending(outcome=Outcome.LOST, kind=None, reason="the daemon ended before it had launched the trainer")
    if evidence.ended_by is EndedBy.STUCK:
        return Ending(outcome=Outcome.HUNG, kind=K.HANG, reason=evidence.reason)
    if evidence.facts.booted_at is not None:
        reason = "the machine went down (a reboot or a power cut) while the trainer was at work"
        return Ending(outcome=Outcome.LOST, kind=None, reason=reason)
    proof = ground.memory_kill(evidence.facts)
    if proof is not None and _may_be_killed(evidence):
        reason = f"the kernel killed the trainer for want of memory: {proof}"
        return Ending(outcome=Outcome.CRASHED, kind=K.HOST_OOM, reason=reason)
    if evidence.ended_by is EndedBy.WISH and _left_as_asked(evidence):
        return Ending(outcome=Outcome.PREEMPTED, kind=None, reason=f"ended without saving: {evidence.reason}")
    if evidence.signal is not None:
        return _signalled(evidence.signal, evidence)
    if evidence.exit_code is None:
        return Ending(outcome=Outcome.LOST, kind=None, reason="the trainer is gone, and nothing tells how it ended")
    return _left(evidence.exit_code, evidence)


def _reported(report: Report, facts: Facts) -> Ending:
    ending = Ending(outcome=report.outcome, kind=report.kind, reason=_one_line(report.message), charged=report.charged)
    proof = ground.memory_kill(facts)
    if proof is not None and report.kind in ECHOES:
        reason = f"the kernel killed a process of the trainer for want of memory: {proof}; {ending.reason}"
        return replace(ending, kind=K.HOST_OOM, reason=reason)
    return ending


def _may_be_killed(evidence: Evidence) -> bool:
    """Return whether the way it ended fits a kill that nobody of us ordered."""
    if evidence.ended_by is EndedBy.WISH:
        return False
    return evidence.signal == signal.SIGKILL or (evidence.signal is None and evidence.exit_code in (None, 137))


def _left_as_asked(evidence: Evidence) -> bool:
    """Return whether an end fits the wish: one of our signals, or nothing that speaks against it."""
    if evidence.signal is not None:
        return evidence.signal in OUTSIDE_SIGNALS
    return evidence.exit_code in (None, ExitCode.BUSY)


def _signalled(number: int, evidence: Evidence) -> Ending:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    trouble = ground.disk_trouble(evidence.facts)
    fault = ground.gpu_fault(evidence.facts)
    if number in OUTSIDE_SIGNALS:
        kind, why = K.KILLED_BY_SIGNAL, f"the trainer was killed by {name} from outside"
    elif number == signal.SIGXFSZ:
        kind, why = K.DISK_FULL, f"the trainer died of {name}: a file grew beyond the limit on file sizes"
    elif number == signal.SIGXCPU:
        kind, why = K.KILLED_BY_SIGNAL, f"the trainer died of {name}: its limit on processor time is used up"
    elif number == signal.SIGBUS and trouble is not None:
        kind, why = K.DISK_FULL, f"the trainer died of {name}, and {trouble}"
    elif fault is not None:
        kind, why = K.GPU_HARDWARE, f"the trainer died of {name}; the kernel's log says: {fault}"
    elif number in (signal.SIGSEGV, signal.SIGBUS):
        kind, why = K.SEGFAULT, f"the trainer died of {name}: a memory fault in native code"
    elif evidence.log_kind is not None:
        kind, why = evidence.log_kind, f"the trainer died of {name}; its log says: {evidence.log_line}"
    else:
        kind, why = K.KILLED_BY_SIGNAL, f"the trainer died of {name}"
    return Ending(outcome=Outcome.CRASHED, kind=kind, reason=why)


def _left(exit_code: int, evidence: Evidence) -> Ending:
    trouble = ground.disk_trouble(evidence.facts)
    if trouble is not None and exit_code != 0:
        reason = f"the trainer left with exit code {exit_code} and without a report: {trouble}"
        return Ending(outcome=Outcome.CRASHED, kind=K.DISK_FULL, reason=reason)
    if exit_code != 0 and evidence.log_kind is not None:
        reason = f"the trainer left with exit code {exit_code} and without a report; its log says: {evidence.log_line}"
        return Ending(outcome=Outcome.CRASHED, kind=evidence.log_kind, reason=reason)
    if exit_code in CANNOT_EXECUTE or not evidence.heard:
        reason = f"the trainer could not start (exit code {exit_code}); its log in logs/trainer.log says why"
        return Ending(outcome=Outcome.CRASHED, kind=K.DEPENDENCY, reason=reason)
    reason = f"the trainer left with exit code {exit_code} and without a report"
    return Ending(outcome=Outcome.CRASHED, kind=K.CODE_ERROR, reason=reason)


def is_from_outside(attempt: Attempt) -> bool:
    """Return whether an ended attempt's end says nothing about its job."""
    if attempt.outcome in (Outcome.LOST, Outcome.PREEMPTED):
        return True
    return attempt.kind is K.KILLED_BY_SIGNAL and attempt.signal in OUTSIDE_SIGNALS


def _one_line(message: str) -> str:
    """Return a message of several lines as the one line that queue, history and status show."""
    return "; ".join(" ".join(line.split()) for line in message.splitlines() if line.strip())
