"""The anti-stuck monitor: what moves, how fast it usually does, and what follows where nothing moves any more.

A stopped trainer is continued. What hangs is not ended before there is evidence of it: then it is asked to leave, and
killed where it does not (leaving.py). What moves again meanwhile is left alone. logs/anti_stuck.log tells all of it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path

from overnight.daemon.context import Context, Moment, Suspicion, Watched
from overnight.disk import attempts, evidence, logs, paces
from overnight.domain import health, pace, vitals
from overnight.domain.attempt import Attempt, Heartbeat, Phase
from overnight.domain.errors import DiskError
from overnight.domain.health import Health, Verdict
from overnight.domain.pace import Kind, Pace
from overnight.domain.vitals import Stillness
from overnight.launchers import whispers, witness
from overnight.launchers.base import Launcher
from overnight.launchers.processes import Identity
from overnight.launchers.vitals import look

EVIDENCE_S = 12.0
"""Evidence that takes longer is not waited for."""

REMEMBER_EVERY_S = 5.0
CLOSELY_AFTER_S, CHILDREN_AFTER_S = 0.5, 2.0
"""From so long without a move on a trainer is looked at closely, and its children are looked for: both cost time."""

WHISPER_AFTER_S = 0.5
"""From so long without a heartbeat on the disk it is listened for in memory: the disk may take none."""

FADE, MOSTLY = 0.9, 0.5


def hear(context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, now: Moment) -> None:
    """Read the heartbeat where it is new, learn from what moved, and count for how long nothing did."""
    passed_s = now.boot - watched.ticked_at
    watched.ticked_at = now.boot
    process = launcher.process(attempt.handle or "")
    still = watched.still
    closely, for_children = still.wall_s >= CLOSELY_AFTER_S, still.charged_s >= CHILDREN_AFTER_S
    seen = look(process, closely=closely, for_children=for_children) if process is not None else None
    watched.still = vitals.after(watched.still, watched.vitals, seen, passed_s=passed_s)
    watched.vitals = seen
    heartbeat = _new_heartbeat(context.layout.attempt(attempt.id), attempt, watched)
    known = heartbeat or watched.heartbeat
    quiet_s = now.boot - known.beat_at if known is not None else watched.still.wall_s
    if process is not None and quiet_s >= WHISPER_AFTER_S:
        heartbeat = whispers.hear(process, attempt.id, known) or heartbeat
    if heartbeat is None:
        return
    before, watched.heartbeat = watched.heartbeat, heartbeat
    if before is None or (before.progress, before.phase) != (heartbeat.progress, heartbeat.phase):
        _learn(context, attempt, watched, before, heartbeat)
        watched.slow = _slowness(watched, heartbeat)
        watched.still, watched.warned = Stillness(), False
        _remember(context, watched, now)


def _new_heartbeat(folder: Path, attempt: Attempt, watched: Watched) -> Heartbeat | None:
    try:
        facts = os.stat(folder / "heartbeat.json")
    except OSError:
        return None
    looks = (facts.st_ino, facts.st_mtime_ns)
    heartbeat = attempts.read_heartbeat(folder) if looks != watched.looks else None
    if heartbeat is None or heartbeat.attempt != attempt.id:
        return None
    watched.looks = looks
    return heartbeat


def kind_of(attempt: Attempt, heartbeat: Heartbeat | None) -> Kind:
    """Return which kind of move a trainer makes now."""
    phase = heartbeat.phase if heartbeat is not None else None
    return pace.kind_of(phase, is_first=_is_first(attempt, heartbeat))


def _is_first(attempt: Attempt, heartbeat: Heartbeat | None) -> bool:
    return heartbeat is not None and attempt.first_step is not None and heartbeat.step <= attempt.first_step


def _learn(
    context: Context, attempt: Attempt, watched: Watched, before: Heartbeat | None, heartbeat: Heartbeat
) -> None:
    """Take in what the last move took; nobody knows where the loop itself stood still, or did not see the beginning."""
    still = watched.still
    if still.lost_s > 0 or (before is None and not watched.from_start):
        return
    if heartbeat.waits or (before is not None and before.waits):
        return  # waiting for the disk says nothing about how long a save takes
    moves = heartbeat.progress - before.progress if before is not None else 1
    kinds = {kind_of(attempt, before)}
    if before is not None and heartbeat.checkpoint != before.checkpoint and Kind.SAVING not in kinds:
        kinds.add(Kind.SAVING)  # a save so quick that no look met it took less than lies between two looks
        moves = max(1, moves - 2)
    known = watched.paces
    for kind in kinds:
        if known.get(kind, Pace()).moves < context.patiences[kind].enough:
            watched.remember_at = float("-inf")  # what makes a judgement possible is written down at once
        each = 1 if kind is Kind.SAVING else moves
        known[kind] = pace.learn(known.get(kind, Pace()), took_s=still.charged_s, wall_s=still.wall_s, moves=each)


def _slowness(watched: Watched, heartbeat: Heartbeat) -> str:
    """Return that the steps are much slower than usual, and what holds them up; "" where they are not."""
    if heartbeat.phase is not Phase.TRAINING:
        return watched.slow  # between two steps: what was said last stands
    still = watched.still
    watched.lately_s = watched.lately_s * FADE + still.wall_s
    watched.lately_held_s = watched.lately_held_s * FADE + still.wall_s - still.charged_s
    usual = watched.paces.get(Kind.TRAINING, Pace())
    times = pace.slowness(usual)
    if times is None:
        return ""
    why = (
        ", held up from outside: a busy machine, a slow disk, or stops"
        if watched.lately_held_s > MOSTLY * watched.lately_s
        else ""
    )
    return f"slow: a step takes {usual.recent_s:.2g} s, {times:.0f} times as long as usual{why}"


def _remember(context: Context, watched: Watched, now: Moment) -> None:
    if now.boot < watched.remember_at:
        return
    watched.remember_at = now.boot + REMEMBER_EVERY_S
    try:
        paces.write(context.layout, watched.subject, watched.paces)
    except DiskError:
        return  # a memory, not the truth: it is written again in a moment


def examine(context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, now: Moment) -> Health | None:
    """Return the judgement on a trainer that is to be ended now, its evidence taken; None while all is well."""
    verdict = judge(context, attempt, watched)
    watched.limit = verdict
    if watched.suspicion is not None:
        return _with_evidence(context, attempt, watched, verdict, now)
    match verdict.verdict:
        case Verdict.WAKE:
            wake(context, attempt, watched, launcher, verdict, now)
        case Verdict.LATE if not watched.warned:
            watched.warned = True
            _tell(context, f"attempt {attempt.id} is late: {verdict.reason}; {verdict.allowed}")
        case Verdict.STUCK:
            _suspect(context, attempt, watched, launcher, verdict, now)
        case _:
            pass
    return None


def judge(context: Context, attempt: Attempt, watched: Watched) -> Health:
    """Judge a trainer by what was seen of it."""
    heartbeat = watched.heartbeat
    return health.judge(
        phase=heartbeat.phase if heartbeat is not None else None,
        still=watched.still,
        watch=context.limits.watch,
        is_first=_is_first(attempt, heartbeat),
        paces=watched.paces,
        stretch=heartbeat.stretch if heartbeat is not None else 1.0,
        patiences=context.patiences,
    )


def wake(
    context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, verdict: Health, now: Moment
) -> None:
    """Continue a trainer that somebody stopped, again and again where it stays stopped."""
    if now.boot - watched.woken_at < health.WAKE_S:
        return
    watched.woken_at = now.boot
    launcher.wake(attempt.handle or "")
    message = f"attempt {attempt.id} was {verdict.reason}: it is continued (to halt the work there is overnight pause)"
    _tell(context, message)
    context.tell("woken", message, kind="attempt.woken", at=now.unix, attempt=attempt.id)


def keep_awake(context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, now: Moment) -> None:
    """Continue a trainer that is asked to leave and that somebody stopped: it could not hear it."""
    verdict = judge(context, attempt, watched)
    if verdict.verdict is Verdict.WAKE:
        wake(context, attempt, watched, launcher, verdict, now)


def _suspect(
    context: Context, attempt: Attempt, watched: Watched, launcher: Launcher, verdict: Health, now: Moment
) -> None:
    """Say that it is stuck, and send for evidence."""
    told = f"attempt {attempt.id} is stuck: {verdict.reason}"
    context.record(told, kind="attempt.stuck", level="error", at=now.unix, attempt=attempt.id)
    _tell(context, f"{told}; evidence is taken, then it is ended, and its job is tried again", level=logging.ERROR)
    watched.suspicion = Suspicion(verdict=verdict, at=now.boot, errand=f"evidence {attempt.id} {now.boot:.3f}")
    folder, process = context.layout.attempt(attempt.id), launcher.process(attempt.handle or "")
    try:
        evidence.write_hang(folder, _hang(attempt, watched, verdict, now))
    except DiskError as error:
        _tell(context, f"evidence of attempt {attempt.id} cannot be written: {error.found}")
    watched.suspicion.work = _collect(folder, process)
    context.errands.ask(watched.suspicion.errand, watched.suspicion.work)


def _collect(folder: Path, process: Identity | None) -> Callable[[], list[str]]:
    """Return the work of taking evidence, which runs beside the loop."""

    def collect() -> list[str]:
        if process is None:
            return []
        evidence.write_process(folder, witness.facts(process))
        evidence.write_stacks(folder, witness.stacks(process, folder / "trainer.log"))
        return [evidence.PROCESS, evidence.STACKS]

    return collect


def _with_evidence(context: Context, attempt: Attempt, watched: Watched, verdict: Health, now: Moment) -> Health | None:
    """Wait for the evidence; return the judgement when it is there, or when it took too long."""
    suspicion = watched.suspicion
    assert suspicion is not None
    assert suspicion.work is not None
    if not verdict.is_stuck:
        watched.suspicion = None
        context.errands.forget(suspicion.errand)
        message = f"attempt {attempt.id} moves again after all: it is left alone"
        context.record(message, kind="attempt.unstuck", at=now.unix, attempt=attempt.id)
        _tell(context, message)
        return None
    try:
        taken = context.errands.ask(suspicion.errand, suspicion.work)
        if taken is None and now.boot - suspicion.at < EVIDENCE_S:
            return None
        names = ", ".join([evidence.HANG, *(taken.value if taken is not None else [])])
    except Exception as error:  # the border of evidence: without it the hang is ended all the same
        names = f"{evidence.HANG}; the rest cannot be taken: {type(error).__name__}: {error}"
    watched.suspicion = None
    _tell(context, f"evidence of attempt {attempt.id}: {names}")
    return suspicion.verdict


def _hang(attempt: Attempt, watched: Watched, verdict: Health, now: Moment) -> dict[str, object]:
    heartbeat = watched.heartbeat
    phase = heartbeat.phase if heartbeat is not None else Phase.LOADING
    kind = kind_of(attempt, heartbeat)
    return {
        "attempt": attempt.id,
        "at": now.unix,
        "phase": phase.value,
        "move": kind.value,
        "step": heartbeat.step if heartbeat is not None else None,
        "reason": verdict.reason,
        "limit_s": verdict.limit_s,
        "limit_from": verdict.basis,
        "still": dataclasses.asdict(watched.still),
        "paces": {kind.name.lower(): dataclasses.asdict(known) for kind, known in watched.paces.items()},
        "heartbeat": dataclasses.asdict(heartbeat) if heartbeat is not None else None,
    }


def _tell(context: Context, message: str, *, level: int = logging.WARNING) -> None:
    logs.add_line(context.layout.log("anti-stuck"), message, level=level)
