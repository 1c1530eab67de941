"""How long a move may take: learnt from what was seen, far above it, never over the ceiling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain import pace
from overnight.domain.attempt import Phase
from overnight.domain.pace import GENERATION, PATIENCE, Kind, Pace, learn, slowness


def seen(times: list[float], *, moves: int = 1) -> Pace:
    found = Pace()
    for took_s in times:
        found = learn(found, took_s=took_s, wall_s=took_s, moves=moves)
    return found


def limit(kind: Kind, paces: dict[Kind, Pace], *, ceiling_s: float = 600, busy: bool = False, stretch: float = 1.0):  # type: ignore[no-untyped-def]
    return pace.limit(
        kind, paces, ceiling_s=ceiling_s, is_busy=busy, stretch=stretch, patiences=PATIENCE
    )  # fmt: skip


def test_without_history_the_ceiling_stands() -> None:
    for kind in Kind:
        found = limit(kind, {})
        assert (found.seconds == 600) == (kind is not Kind.EXITING)
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([0.2] * 4)}).seconds == 600


def test_short_steps_end_a_hang_within_seconds_and_long_ones_have_their_time() -> None:
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([0.2] * 5)}).seconds == 10
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([0.2] * 5)}, busy=True).seconds == 60
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([3.0] * 5)}).seconds == 60
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([40.0] * 5)}).seconds == 600


def test_the_longest_row_has_the_time_that_its_length_asks_for() -> None:
    assert limit(Kind.TRAINING, {Kind.TRAINING: seen([1.0] * 20)}, stretch=16).seconds == pytest.approx(320)


def test_one_storm_is_forgotten_after_some_hundred_steps() -> None:
    stormy = seen([0.2] * 10 + [25.0] + [0.2] * 10)
    assert limit(Kind.TRAINING, {Kind.TRAINING: stormy}).seconds == 500
    calm = stormy
    for _ in range(2 * GENERATION):
        calm = learn(calm, took_s=0.2, wall_s=0.2, moves=1)
    assert limit(Kind.TRAINING, {Kind.TRAINING: calm}).seconds == 10


def test_an_evaluation_never_timed_is_held_against_the_steps_and_one_that_was_against_itself() -> None:
    training = {Kind.TRAINING: seen([0.2] * 20)}
    assert limit(Kind.EVALUATING, training, ceiling_s=1800).seconds == 300
    assert limit(Kind.EVALUATING, {Kind.TRAINING: seen([5.0] * 20)}, ceiling_s=1800).seconds == 500
    known = {**training, Kind.EVALUATING: seen([4.0] * 3)}
    assert limit(Kind.EVALUATING, known, ceiling_s=1800).seconds == 160


def test_a_save_forty_times_longer_than_ever_before_is_well_inside() -> None:
    for usual_s in (0.05, 1.0, 5.0):
        allowed = limit(Kind.SAVING, {Kind.SAVING: seen([usual_s])}, ceiling_s=900)
        assert allowed.seconds > 2 * 40 * usual_s


def test_an_evaluation_twenty_times_longer_than_the_steps_is_well_inside() -> None:
    for usual_s in (0.2, 5.0):
        paces = {Kind.TRAINING: seen([usual_s] * 20)}
        assert limit(Kind.EVALUATING, paces, ceiling_s=1800).seconds > 4 * 20 * usual_s


def test_several_moves_between_two_looks_are_shared_out_for_the_usual_and_not_for_the_longest() -> None:
    found = seen([0.4] * 10, moves=4)
    assert found.moves == 40
    assert found.typical_s == pytest.approx(0.1)
    assert found.peak_s == 0.4


def test_slow_is_said_where_the_last_moves_take_several_times_the_usual() -> None:
    usual = seen([0.2] * 100)
    assert slowness(usual) is None
    slow = usual
    for _ in range(12):
        slow = learn(slow, took_s=0.2, wall_s=1.2, moves=1)
    found = slowness(slow)
    assert found is not None
    assert found > 3
    for _ in range(30):
        slow = learn(slow, took_s=0.2, wall_s=0.2, moves=1)
    assert slowness(slow) is None


@pytest.mark.parametrize("phase", [None, *Phase])
def test_each_phase_is_made_of_one_kind_of_move(phase: Phase | None) -> None:
    assert isinstance(pace.kind_of(phase, is_first=False), Kind)
    assert pace.kind_of(Phase.TRAINING, is_first=True) is Kind.FIRST


def test_only_jobs_of_the_same_kind_tell_of_each_other() -> None:
    base = {"base_model": "a", "method": "lora", "max_length": 512, "train": {"batch_size": 4, "threads": 1}}
    assert pace.subject_of(base) == pace.subject_of({**base, "seed": 7, "evaluation": {"holdout": 0.1}})
    for change in ({"base_model": "b"}, {"max_length": 64}, {"train": {"batch_size": 8, "threads": 1}}):
        assert pace.subject_of({**base, **change}) != pace.subject_of(base)


times = st.lists(st.floats(0.001, 100), min_size=1, max_size=400)


@given(times=times, kind=st.sampled_from(list(Kind)), busy=st.booleans(), stretch=st.floats(0.1, 100))
def test_no_limit_is_over_its_ceiling_nor_near_what_was_seen_lately(
    times: list[float], kind: Kind, busy: bool, stretch: float
) -> None:
    found = limit(kind, {kind: seen(times), Kind.TRAINING: seen(times)}, busy=busy, stretch=stretch)
    assert found.seconds <= 600
    assert found.seconds == 600 or found.seconds >= 20 * max(times[-GENERATION:])
