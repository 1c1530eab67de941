"""What of the time between two looks counts against a process: only what it could have used."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.vitals import LOST_S, MOVED_BYTES, Stillness, Vitals, after


def vitals(state: str = "S", *, cpu_s: float = 0.0, **waited: float) -> Vitals:
    return Vitals(state=state, cpu_s=cpu_s, main=1, waited_s={int(name[1:]): wait for name, wait in waited.items()})


def step(before: Vitals | None, now: Vitals | None, passed_s: float = 0.2) -> Stillness:
    return after(Stillness(), before, now, passed_s=passed_s)


def test_a_process_that_sleeps_is_charged_with_the_whole_time() -> None:
    still = step(vitals(t1=1.0), vitals(t1=1.0))
    assert (still.wall_s, still.watched_s, still.charged_s, still.stopped_s) == (0.2, 0.2, 0.2, 0.0)


def test_a_process_that_computes_is_charged_with_what_it_burns() -> None:
    still = step(vitals("R"), vitals("R", cpu_s=0.2))
    assert (still.charged_s, still.burned_s) == (0.2, 0.2)


def test_waiting_for_a_processor_is_not_charged_when_it_is_over() -> None:
    still = step(vitals(t1=1.0), vitals(t1=1.15))
    assert still.charged_s == pytest.approx(0.05)
    assert still.watched_s == pytest.approx(0.05)


def test_waiting_for_a_processor_is_not_charged_while_it_lasts() -> None:
    still = step(vitals("R", t1=1.0), vitals("R", t1=1.0))
    assert (still.charged_s, still.watched_s) == (0.0, 0.0)


def test_a_helper_thread_that_waits_is_no_guilt_but_does_not_hold_up_the_ceiling() -> None:
    still = step(vitals(t1=0.0, t2=0.0), vitals(t1=0.0, t2=0.2))
    assert (still.charged_s, still.watched_s) == (0.0, 0.2)


@pytest.mark.parametrize("state", ["D", "t", "T"])
def test_what_is_held_by_the_disk_a_debugger_or_a_stop_is_only_held_against_the_ceiling(state: str) -> None:
    still = step(vitals(state), vitals(state))
    assert (still.charged_s, still.watched_s) == (0.0, 0.2)


def test_a_stop_counts_without_a_break_only() -> None:
    still = after(step(vitals("T"), vitals("T")), vitals("T"), vitals("T"), passed_s=0.2)
    assert still.stopped_s == pytest.approx(0.4)
    assert after(still, vitals("T"), vitals("T", cpu_s=0.1), passed_s=0.2).stopped_s == 0.0
    assert after(still, vitals("T"), vitals("S"), passed_s=0.2).stopped_s == 0.0


def test_a_loop_that_stood_still_begins_anew_and_counts_a_moment_at_most() -> None:
    sure = Stillness(wall_s=5, watched_s=5, charged_s=5, burned_s=5, stopped_s=1)
    still = after(sure, vitals(), vitals(), passed_s=3600)
    assert (still.charged_s, still.stopped_s, still.burned_s) == (0.0, 0.0, 0.0)
    assert (still.watched_s, still.wall_s, still.lost_s) == (5 + LOST_S, 5 + LOST_S, 3600 - LOST_S)


def test_who_reads_or_writes_is_not_charged_however_slow_it_is() -> None:
    before, now = (dataclasses.replace(vitals(), io_bytes=amount) for amount in (1, 1 + MOVED_BYTES))
    still = step(before, now)
    assert (still.charged_s, still.watched_s) == (0.0, 0.2)
    assert step(before, dataclasses.replace(now, io_bytes=MOVED_BYTES)).charged_s == 0.2
    assert step(vitals(), now).charged_s == 0.2, "nobody looked before"


def test_who_waits_for_a_child_of_its_own_counts_as_computing() -> None:
    still = step(vitals(), dataclasses.replace(vitals(), has_children=True))
    assert (still.charged_s, still.burned_s) == (0.2, 0.2)


def test_where_the_system_tells_nothing_all_watched_time_counts() -> None:
    still = step(None, None)
    assert (still.watched_s, still.charged_s) == (0.2, 0.2)


@given(
    looks=st.lists(
        st.tuples(st.sampled_from("RSDTtI"), st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.floats(-5, 100)),
        max_size=30,
    )
)
def test_nobody_is_ever_charged_with_more_than_was_watched_nor_that_with_more_than_passed(
    looks: list[tuple[str, float, float, float, float]],
) -> None:
    still, before, passed = Stillness(), None, 0.0
    for state, cpu_s, main, helper, seconds in looks:
        now = vitals(state, cpu_s=cpu_s, t1=main, t2=helper)
        later = after(still, before, now, passed_s=seconds)
        passed += max(0.0, seconds)
        assert 0 <= later.charged_s <= later.watched_s + 1e-6
        assert later.watched_s <= later.wall_s + 1e-6
        assert later.wall_s + later.lost_s <= passed + 1e-6
        assert later.watched_s >= still.watched_s - 1e-9
        still, before = later, now
