"""A guard is judged in watched time only, and not for what is not its fault."""

from __future__ import annotations

import pytest

from overnight.domain import guard
from overnight.domain.guard import Look, Silence


def listened(*looks: Look, longest_s: float = 2.0) -> Silence:
    silence = None
    for look in looks:
        silence = guard.listen(silence, look, longest_s=longest_s)
    assert silence is not None
    return silence


def still(seconds: int, *, count: int | None = 7, state: str = "S", starved: float = 0.0) -> list[Look]:
    """Return one look a second at a guard that does not move."""
    return [Look(at=float(at), count=count, state=state, starved_s=starved * at) for at in range(seconds + 1)]


def test_a_guard_that_does_not_move_is_hung_after_the_limit_and_not_before() -> None:
    assert not guard.judge(listened(*still(30)), limit_s=30).is_hung
    verdict = guard.judge(listened(*still(31)), limit_s=30)
    assert verdict.is_hung
    assert verdict.reason == "it hangs: nothing moved for 31 s (limit 30 s)"


def test_one_beat_begins_the_silence_anew() -> None:
    silence = listened(*still(20), Look(at=21, count=8, doing="settle"), Look(at=22, count=8, doing="settle"))
    assert silence.unmoved_s == 1
    assert guard.judge(silence, limit_s=30).reason == "moved 1 s ago in 'settle'"


def test_a_stopped_one_is_told_as_stopped() -> None:
    assert guard.judge(listened(*still(9, state="T")), limit_s=5).reason.startswith("it is stopped (by a signal)")


@pytest.mark.parametrize("state", ["D", "t"], ids=["in the kernel", "traced"])
def test_who_waits_in_the_kernel_or_is_traced_is_not_to_blame(state: str) -> None:
    assert listened(*still(100, state=state)).unmoved_s == 0


def test_time_in_line_for_a_processor_does_not_count() -> None:
    assert listened(*still(100, starved=0.9)).unmoved_s == pytest.approx(10)
    assert listened(*still(100, starved=1.5)).unmoved_s == 0


def test_time_in_which_nobody_looked_does_not_count() -> None:
    looks = [Look(at=0, count=1), Look(at=1, count=1), Look(at=10_000, count=1)]
    assert listened(*looks).unmoved_s == 3
    assert listened(Look(at=100, count=1), Look(at=50, count=1)).unmoved_s == 0, "a clock that goes back counts nothing"


def test_one_whose_beat_is_unknown_is_judged_only_where_it_is_stopped() -> None:
    assert listened(*still(100, count=None)).unmoved_s == 0
    assert listened(*still(100, count=None, state="T")).unmoved_s == 100
