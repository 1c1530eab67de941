"""Whether a working attempt is healthy: progress counts, not the pulse."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.domain.attempt import Phase
from overnight.domain.config import WatchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The judgement on a working attempt."""

    is_stuck: bool
    limit_s: float
    reason: str


def judge(*, phase: Phase | None, unmoved_s: float, watch: WatchSettings) -> Health:
    """Judge an attempt that has not moved for ``unmoved_s`` watched seconds; ``phase`` is None before its first word.

    The time is what the loop itself saw pass: a loop that was stopped or starved has seen nothing and blames nobody.
    """
    limit_s = limit_of(phase, watch)
    doing = phase.value if phase is not None else "starting"
    if unmoved_s < limit_s:
        return Health(is_stuck=False, limit_s=limit_s, reason=f"{doing}, moved {unmoved_s:.0f} s ago")
    reason = f"no progress while {doing} for {unmoved_s:.0f} s (limit {limit_s:g} s)"
    return Health(is_stuck=True, limit_s=limit_s, reason=reason)


def limit_of(phase: Phase | None, watch: WatchSettings) -> float:
    """Return how long a phase may go without any progress."""
    match phase:
        case None | Phase.LOADING:
            return watch.load_stuck_s
        case Phase.TRAINING:
            return watch.no_progress_s
        case Phase.EVALUATING:
            return watch.eval_stuck_s
        case Phase.SAVING:
            return watch.save_stuck_s
        case Phase.EXITING:
            return watch.stuck_s
