"""Whether a spare trainer is wanted: a process with the libraries loaded, from which the next trainer is forked.

It is a convenience: whatever is wrong with it, the next trainer is started anew, as if there had never been one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

IDLE_S = 300.0
"""A spare without work in sight is kept for so long."""

FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 900.0


class State(StrEnum):
    """How far a spare is."""

    NONE = "none"
    LOADING = "loading"
    READY = "ready"
    OVER = "over"  # gone, unfit, or about to be gone


class Act(StrEnum):
    """What to do."""

    KEEP = "keep"  # leave it as it is, also where there is none
    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the decision stands on."""

    state: State
    is_wanted: bool  # by the settings, by the launcher, and nothing is about to end
    has_work: bool  # something is trained or waits to be
    is_trainer_loading: bool  # a trainer was started and does not train yet
    fits: bool  # what it has loaded is what the next trainer needs
    loading_s: float
    load_limit_s: float
    idle_s: float  # since there was work
    troubles: int  # spares that were of no use, one after the other
    last_trouble_s: float  # since the last of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and why."""

    act: Act
    reason: str
    is_trouble: bool = False


def decide(facts: Facts) -> Decision:
    """Return what to do about the spare."""
    if facts.state is State.NONE:
        return _without(facts)
    if not facts.is_wanted:
        return Decision(act=Act.END, reason="it is not wanted any more")
    if facts.state is State.OVER:
        return Decision(act=Act.END, reason="it is of no use any more", is_trouble=True)
    if not facts.fits:
        return Decision(act=Act.END, reason="it has loaded something else than the next trainer needs")
    if facts.state is State.LOADING and facts.loading_s > facts.load_limit_s:
        why = f"it has been loading for {facts.loading_s:.0f} s, the limit is {facts.load_limit_s:g} s"
        return Decision(act=Act.END, reason=why, is_trouble=True)
    if facts.idle_s > IDLE_S:
        return Decision(act=Act.END, reason=f"there has been no work for {facts.idle_s:.0f} s")
    return Decision(act=Act.KEEP, reason="it is there")


def _without(facts: Facts) -> Decision:
    if not facts.is_wanted or not facts.has_work:
        return Decision(act=Act.KEEP, reason="none is needed")
    if facts.is_trainer_loading:
        return Decision(act=Act.KEEP, reason="the trainer that loads goes first")
    pause_s = pause_after(facts.troubles)
    if facts.last_trouble_s < pause_s:
        return Decision(act=Act.KEEP, reason=f"the last one was of no use; the next is tried after {pause_s:g} s")
    return Decision(act=Act.START, reason="the next trainer is then there in a second")


def pause_after(troubles: int) -> float:
    """Return how long to wait for the next try: none after a single mishap, then longer and longer."""
    return 0.0 if troubles <= 1 else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(troubles - 2, 16))
