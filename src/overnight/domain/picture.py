"""What goes on in a workspace, decided from the facts: one state, its reason, and since when.

The questions are asked in this order: is the daemon there, is an attempt open, what does the operator want, is there
work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from overnight.domain.attempt import Attempt, AttemptState, Heartbeat, Phase


class State(StrEnum):
    """What goes on, in one word."""

    LOADING = "loading"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"
    IDLE = "idle"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    WAITING = "waiting"
    DEAD = "dead"


STARTING_S = 10.0
"""After ``up``, a watchdog without a daemon is starting it for so long, and not yet missing it."""

_PHASES = {
    Phase.LOADING: State.LOADING,
    Phase.TRAINING: State.TRAINING,
    Phase.EVALUATING: State.EVALUATING,
    Phase.SAVING: State.SAVING,
    Phase.MERGING: State.SAVING,
    Phase.EXITING: State.SAVING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator wants, and since when."""

    reason: str
    at: float  # unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the daemon last said of itself."""

    state: str
    reason: str
    since: float  # unix seconds
    quiet_s: float  # since it last said anything
    slow: str = ""  # that the trainer moves, and much slower than usual
    limit: str = ""  # how long the trainer may take for its next move


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the decision stands on."""

    up: Wish | None
    down: Wish | None
    paused: Wish | None
    stopped: Wish | None
    daemon_alive: bool
    daemon_silence: str = ""  # in words, where it is there and does not move
    watchdog_pid: int | None
    watchdog_doing: str = ""  # its last words
    is_watchdog_silent: bool = False
    told: Told | None
    attempt: Attempt | None  # the open one
    heartbeat: Heartbeat | None
    trainer_alive: bool
    job_file: str
    step: int
    last_sign: float | None  # unix seconds: when daemon or trainer last said anything
    queued: int
    disk: str = ""  # why the next save does not fit; "" where it does
    pause_end: float | None  # unix seconds: when the first waiting retry may go on


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One state with its reason and its beginning."""

    state: State
    reason: str
    since: float | None


def decide(facts: Facts, *, now: float) -> Standing:
    """Return what goes on."""
    if not facts.daemon_alive:
        return _without_daemon(facts, now=now)
    if facts.daemon_silence:
        return _with_silent_daemon(facts)
    if facts.down is not None:
        return Standing(state=State.STOPPING, reason=facts.down.reason, since=facts.down.at)
    if facts.attempt is not None:
        return _with_attempt(facts, facts.attempt)
    if facts.paused is not None:
        return Standing(state=State.PAUSED, reason=facts.paused.reason, since=facts.paused.at)
    if facts.stopped is not None:
        return Standing(state=State.STOPPED, reason=facts.stopped.reason, since=facts.stopped.at)
    return _without_attempt(facts, now=now)


def _without_daemon(facts: Facts, *, now: float) -> Standing:
    if facts.up is not None:
        if facts.watchdog_pid is not None and 0 <= now - facts.up.at < STARTING_S:
            return Standing(state=State.WAITING, reason="the daemon is starting", since=facts.up.at)
        seen = f", last heard of {age(now - facts.last_sign)} ago" if facts.last_sign is not None else ""
        who = _who_helps(facts, "starts it again")
        reason = f"the daemon should run and does not: last step {facts.step}{seen}; {who}"
        return Standing(state=State.DEAD, reason=reason, since=facts.last_sign)
    if facts.trainer_alive:
        reason = "a trainer still works, and no daemon watches it: overnight up adopts it, overnight down ends it"
        return Standing(state=State.STOPPING, reason=reason, since=facts.last_sign)
    if facts.paused is not None:
        reason = f"{facts.paused.reason}; the daemon is not running either"
        return Standing(state=State.PAUSED, reason=reason, since=facts.paused.at)
    reason = "the daemon is not running: overnight up starts it"
    return Standing(state=State.STOPPED, reason=reason, since=facts.last_sign)


def _with_silent_daemon(facts: Facts) -> Standing:
    """A trainer needs no daemon for a while: what it does stands first."""
    trouble = f"the daemon does not move ({facts.daemon_silence}); {_who_helps(facts, 'replaces it')}"
    if facts.attempt is not None and facts.trainer_alive:
        standing = _with_attempt(facts, facts.attempt)
        return replace(standing, reason=f"{standing.reason}; {trouble}")
    return Standing(state=State.DEAD, reason=f"{trouble}; last step {facts.step}", since=facts.last_sign)


def _who_helps(facts: Facts, does: str) -> str:
    if facts.watchdog_pid is None:
        return "the watchdog is gone too: overnight up starts both"
    if facts.is_watchdog_silent:
        return f"the watchdog (pid {facts.watchdog_pid}) does not move either: overnight up replaces both"
    doing = f": {facts.watchdog_doing}" if facts.watchdog_doing else ""
    return f"the watchdog (pid {facts.watchdog_pid}) {does}{doing}"


def _with_attempt(facts: Facts, attempt: Attempt) -> Standing:
    heartbeat = facts.heartbeat
    if attempt.state is AttemptState.STOPPING:
        return Standing(state=State.STOPPING, reason=attempt.reason or "the trainer saves and leaves", since=None)
    if heartbeat is None and attempt.state is AttemptState.RUNNING:
        reason = f"training {facts.job_file}; the trainer's heartbeat cannot be read"
        return Standing(state=State.TRAINING, reason=reason, since=attempt.started_at)
    if heartbeat is None:
        reason = f"the trainer starts on {facts.job_file}"
        return Standing(state=State.LOADING, reason=reason, since=attempt.started_at)
    if not facts.trainer_alive:
        reason = f"the trainer of {facts.job_file} has ended; the daemon is about to draw the consequence"
        return Standing(state=State.WAITING, reason=reason, since=heartbeat.written_at)
    state = _PHASES[heartbeat.phase]
    reason = f"{doing(heartbeat) or state.value} {facts.job_file}"
    if heartbeat.waits:
        state, reason = State.WAITING, f"{facts.job_file}: {heartbeat.waits}"
    elif facts.disk:
        reason += f"; the next save will wait for the disk: {facts.disk}"
    if facts.paused is not None:
        state, reason = State.STOPPING, f"pausing: {facts.job_file} is saved at the next step border"
    elif facts.stopped is not None:
        reason += "; stops after this file"
    if facts.told is not None and facts.told.slow:
        reason += f"; {facts.told.slow}"
    return Standing(state=state, reason=reason, since=_phase_since(heartbeat))


def doing(heartbeat: Heartbeat) -> str:
    """Return what a merge is at, "merging, part 12 of 30", and "" of anything else."""
    if heartbeat.phase is not Phase.MERGING:
        return ""
    return f"merging, part {heartbeat.part} of {heartbeat.parts}" if heartbeat.parts is not None else "merging"


def _without_attempt(facts: Facts, *, now: float) -> Standing:
    told = facts.told
    if facts.queued == 0:
        if told is not None and told.state == State.WAITING.value:
            return Standing(state=State.WAITING, reason=told.reason, since=told.since)
        since = told.since if told is not None and told.state == State.IDLE.value else None
        return Standing(state=State.IDLE, reason="nothing is queued", since=since)
    if facts.disk:  # before what the loop told: it may not be able to write it down
        return Standing(state=State.WAITING, reason=f"waiting for the disk: {facts.disk}", since=None)
    if told is not None and told.state in (State.WAITING.value, State.LOADING.value) and told.reason:
        return Standing(state=State(told.state), reason=told.reason, since=told.since)
    if facts.pause_end is not None and facts.pause_end > now:
        reason = f"a failed job is tried again in {age(facts.pause_end - now)}"
        return Standing(state=State.WAITING, reason=reason, since=None)
    return Standing(state=State.WAITING, reason="the next job is about to start", since=None)


def _phase_since(heartbeat: Heartbeat) -> float:
    """Return the beginning of the phase by the wall clock (both boot times stand in one heartbeat)."""
    return heartbeat.written_at - max(0.0, heartbeat.beat_at - heartbeat.phase_since)


def age(seconds: float) -> str:
    """Return a length of time as people say it: "8 s", "3 min", "2 h 5 min", "4 days"."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{whole // 86_400} days"


def iso(at: float | None) -> str | None:
    """Return unix seconds as UTC, such as "2026-01-31T22:05:09Z"; None stays None."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None
