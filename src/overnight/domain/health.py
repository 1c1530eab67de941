"""Whether a working attempt is healthy: progress counts, not the pulse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.attempt import Phase
from overnight.domain.config import WatchSettings
from overnight.domain.pace import PATIENCE, Paces, Patiences, kind_of, limit
from overnight.domain.vitals import STOPPED, Stillness

WAKE_S = 1.5
"""A process that somebody stopped is continued after so long: it costs nothing, and nobody has a use for the stop."""

HELD_S = 10.0
"""One that stays stopped though it was continued again and again is ended."""

BUSY_SHARE = 0.25
"""Of the time that counts: who used so much processor time computes, who used less waits."""

WARN_SHARE = 0.5


class Verdict(StrEnum):
    """What is to be done."""

    FINE = "fine"
    LATE = "late"  # half of the limit is over: told
    WAKE = "wake"  # it is stopped: to be continued
    STUCK = "stuck"  # to be ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The judgement on a working attempt."""

    verdict: Verdict
    limit_s: float
    basis: str  # where the limit comes from
    reason: str

    @property
    def allowed(self) -> str:
        """Return how long it may take, and why so long."""
        return f"it may take {self.limit_s:.3g} s ({self.basis})"

    @property
    def is_stuck(self) -> bool:
        """Return whether it is to be ended."""
        return self.verdict is Verdict.STUCK


def judge(
    *,
    phase: Phase | None,
    still: Stillness,
    watch: WatchSettings,
    is_first: bool = False,
    paces: Paces | None = None,
    stretch: float = 1.0,
    patiences: Patiences = PATIENCE,
) -> Health:
    """Judge an attempt that has not moved for a while; ``phase`` is None before its first word.

    Two clocks run. What is learnt is held against the time that the trainer could have used (``charged_s``); the
    ceilings of the settings against all time in which it was not waiting for a processor (``watched_s``): they end also
    what hangs in the kernel or under a debugger. ``is_first`` tells that this attempt has made no step yet.
    """
    ceiling_s = limit_of(phase, watch)
    is_busy = still.burned_s >= BUSY_SHARE * still.charged_s and still.burned_s > 0
    allowed = limit(
        kind_of(phase, is_first=is_first), paces or {}, ceiling_s=ceiling_s, is_busy=is_busy, stretch=stretch,
        patiences=patiences,
    )  # fmt: skip
    doing = phase.value if phase is not None else "starting"

    def health(verdict: Verdict, limit_s: float, basis: str, reason: str) -> Health:
        return Health(verdict=verdict, limit_s=limit_s, basis=basis, reason=reason)

    if still.watched_s >= ceiling_s:
        reason = f"no progress while {doing} for {still.watched_s:.0f} s (limit {ceiling_s:g} s)"
        return health(Verdict.STUCK, ceiling_s, "the ceiling of the settings", reason)
    if still.state == STOPPED and still.stopped_s >= HELD_S:
        reason = f"stopped by a signal while {doing}, and nothing continues it (limit {HELD_S:g} s)"
        return health(Verdict.STUCK, HELD_S, "a stop that outlasts SIGCONT", reason)
    if still.state == STOPPED and still.stopped_s >= WAKE_S:
        return health(Verdict.WAKE, WAKE_S, "a stopped process", f"stopped by a signal while {doing}")
    if still.charged_s >= allowed.seconds:
        how = "busy" if is_busy else "idle"
        over = f"limit {allowed.seconds:.3g} s: {allowed.basis}"
        reason = f"no progress while {doing} for {still.charged_s:.0f} s, {how} ({over})"
        return health(Verdict.STUCK, allowed.seconds, allowed.basis, reason)
    late = max(still.charged_s / allowed.seconds, still.watched_s / ceiling_s)
    reason = f"{doing}, moved {still.wall_s:.0f} s ago"
    return health(Verdict.LATE if late >= WARN_SHARE else Verdict.FINE, allowed.seconds, allowed.basis, reason)


def limit_of(phase: Phase | None, watch: WatchSettings) -> float:
    """Return how long a phase may go without any progress, whatever was learnt."""
    match phase:
        case None | Phase.LOADING | Phase.MERGING:
            return watch.load_stuck_s
        case Phase.TRAINING:
            return watch.no_progress_s
        case Phase.EVALUATING:
            return watch.eval_stuck_s
        case Phase.SAVING:
            return watch.save_stuck_s
        case Phase.EXITING:
            return watch.stuck_s
