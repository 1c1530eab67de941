"""The judgement on a trainer that does not move: what is stuck, what is stopped, what only waits."""

from __future__ import annotations

import pytest

from overnight.domain.attempt import Phase
from overnight.domain.config import WatchSettings
from overnight.domain.health import HELD_S, WAKE_S, Verdict, judge, limit_of
from overnight.domain.pace import Kind, Pace, learn
from overnight.domain.vitals import Stillness

WATCH = WatchSettings()
KNOWN = {kind: Pace() for kind in Kind}
for _kind in KNOWN:
    for _ in range(20):
        KNOWN[_kind] = learn(KNOWN[_kind], took_s=0.2, wall_s=0.2, moves=1)


def still(seconds: float, *, burned_s: float = 0.0, charged_s: float | None = None, state: str = "S") -> Stillness:
    charged = seconds if charged_s is None else charged_s
    return Stillness(wall_s=seconds, watched_s=seconds, charged_s=charged, burned_s=burned_s, state=state)


CASES = {
    "a step that sleeps: fine at first": (Phase.TRAINING, still(4), Verdict.FINE),
    "told at half its limit": (Phase.TRAINING, still(6), Verdict.LATE),
    "stuck at ten seconds": (Phase.TRAINING, still(10), Verdict.STUCK),
    "a step that computes has a minute": (Phase.TRAINING, still(20, burned_s=19), Verdict.FINE),
    "and no more": (Phase.TRAINING, still(60, burned_s=59), Verdict.STUCK),
    "a minute in the queue for a processor is nothing": (Phase.TRAINING, still(60, charged_s=4), Verdict.FINE),
    "ten minutes held by the disk are the ceiling": (Phase.TRAINING, still(600, charged_s=0, state="D"), Verdict.STUCK),
    "five minutes are half of it": (Phase.TRAINING, still(301, charged_s=0, state="D"), Verdict.LATE),
    "an evaluated batch has a minute": (Phase.EVALUATING, still(59), Verdict.LATE),
    "an evaluated batch that hangs": (Phase.EVALUATING, still(60), Verdict.STUCK),
    "a save may take minutes": (Phase.SAVING, still(120), Verdict.LATE),
    "a save that hangs": (Phase.SAVING, still(180), Verdict.STUCK),
    "a load may take minutes": (Phase.LOADING, still(80), Verdict.FINE),
    "a load that hangs": (Phase.LOADING, still(180), Verdict.STUCK),
    "before the first word it is loading": (None, still(180), Verdict.STUCK),
    "on its way out": (Phase.EXITING, still(60), Verdict.STUCK),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_where_much_was_learnt(name: str) -> None:
    phase, facts, expected = CASES[name]
    assert judge(phase=phase, still=facts, watch=WATCH, paces=KNOWN).verdict is expected


@pytest.mark.parametrize("phase", [None, *Phase])
def test_where_nothing_was_learnt_the_ceilings_alone_end_anything(phase: Phase | None) -> None:
    ceiling_s = limit_of(phase, WATCH) if phase is not Phase.EXITING else 60
    assert judge(phase=phase, still=still(ceiling_s - 1), watch=WATCH).verdict is Verdict.LATE
    found = judge(phase=phase, still=still(ceiling_s), watch=WATCH)
    assert found.verdict is Verdict.STUCK
    assert f"{ceiling_s:g} s" in found.reason


def test_the_first_step_is_judged_by_first_steps() -> None:
    assert judge(phase=Phase.TRAINING, still=still(50), watch=WATCH, paces=KNOWN, is_first=True).verdict is Verdict.FINE
    assert judge(phase=Phase.TRAINING, still=still(120), watch=WATCH, paces=KNOWN, is_first=True).is_stuck


def test_a_stopped_one_is_continued_soon_in_every_phase_and_ended_only_where_that_is_in_vain() -> None:
    for phase in Phase:
        for stopped_s, expected in ((WAKE_S - 0.1, Verdict.FINE), (WAKE_S, Verdict.WAKE), (HELD_S, Verdict.STUCK)):
            facts = Stillness(wall_s=stopped_s, watched_s=stopped_s, stopped_s=stopped_s, state="T")
            assert judge(phase=phase, still=facts, watch=WATCH).verdict is expected


def test_one_that_runs_again_is_not_continued() -> None:
    assert judge(phase=Phase.TRAINING, still=Stillness(state="S"), watch=WATCH).verdict is Verdict.FINE


def test_the_reason_names_phase_time_and_where_the_limit_comes_from() -> None:
    found = judge(phase=Phase.TRAINING, still=still(12), watch=WATCH, paces=KNOWN)
    assert (
        found.reason
        == "no progress while training for 12 s, idle (limit 10 s: 20 moves of training seen, the longest 0.2 s)"
    )
    assert (found.limit_s, found.basis) == (10, "20 moves of training seen, the longest 0.2 s")


def test_settings_under_the_floors_are_kept() -> None:
    tight = WatchSettings(no_progress_s=0.5)
    assert judge(phase=Phase.TRAINING, still=still(0.5), watch=tight, paces=KNOWN).is_stuck
