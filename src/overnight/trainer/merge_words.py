"""The last word of a merge that made no version: it was asked to leave, refused, or failed. Loads no torch."""

from __future__ import annotations

import resource
import time
from typing import Any

from overnight.domain.attempt import Outcome
from overnight.domain.errors import OvernightError
from overnight.domain.merge import MergeReport, MergeSpec, Problem
from overnight.trainer import environment, failures
from overnight.trainer.pulse import Pulse


def left(spec: MergeSpec, pulse: Pulse, asked: BaseException) -> MergeReport:
    """Return the report of a merge that was asked to leave: nothing is published."""
    return MergeReport(
        attempt=spec.attempt,
        outcome=Outcome.PREEMPTED,
        message=f"left before the merge was done: {asked}",
        **_common(spec, pulse),
    )


def failed(spec: MergeSpec, pulse: Pulse, error: BaseException, traceback: str) -> MergeReport:
    """Return the report of a merge that was refused or failed."""
    failure = failures.judge(error)
    return MergeReport(
        attempt=spec.attempt,
        outcome=Outcome.CRASHED,
        message=failure.message,
        problem=_problem(error, failure),
        failure=failure.kind,
        traceback=traceback,
        **_common(spec, pulse),
    )


def _problem(error: BaseException, failure: failures.Failure) -> Problem:
    if isinstance(error, OvernightError):
        code = (error.code or failure.kind.value).lower()
        return Problem(code=code, what=error.what, found=error.found, expected=error.expected, fix=error.fix)
    what, _, rest = failure.message.partition("\n")
    return Problem(code=failure.kind.value, what=what, found=str(error)[:500] or None, fix=_fix(rest))


def _fix(text: str) -> str | None:
    for line in text.splitlines():
        name, _, words = line.strip().partition(":")
        if name == "To do":
            return words.strip()
    return None


def _common(spec: MergeSpec, pulse: Pulse) -> dict[str, Any]:
    return {
        "versions": environment.package_versions(),
        "notes": list(pulse.notes),
        "seconds": round(max(0.0, time.time() - spec.created_at), 3) if spec.created_at else 0.0,
        "peak_memory_bytes": peak_memory_bytes(),
        "ended_at": time.time(),
    }


def peak_memory_bytes() -> int:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
