"""Which checkpoints stay."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.errors import UsageError
from overnight.domain.retention import Resting, plan, plan_trash


def report(step: int, verdict: Verdict = Verdict.VERIFIED) -> CheckpointReport:
    return CheckpointReport(
        step=step, path=f"/model/checkpoint-{step}", verdict=verdict, reason="so", bytes=10, manifest=None
    )


def kept(reports: list[CheckpointReport], *, keep: int, held: Iterable[int] = ()) -> list[int]:
    plan_of = plan(reports, keep=keep, held=dict.fromkeys(held, "in use"))
    return [item.step for item in plan_of if item.is_kept]


def test_what_is_damaged_and_older_than_a_good_one_is_set_aside_with_its_reason() -> None:
    """Newer ones are the dispatcher's; foreign ones are left where they are; what is pinned stays."""
    reports = [
        report(60, Verdict.CORRUPT), report(50, Verdict.VERIFIED), report(40, Verdict.CORRUPT),
        report(30, Verdict.INCOMPLETE), report(20, Verdict.FOREIGN), report(10, Verdict.CORRUPT),
    ]  # fmt: skip
    items = plan(reports, keep=1, held={10: "pinned"})
    assert [item.step for item in items if item.is_set_aside] == [40, 30]
    assert all(item.is_kept for item in items)
    assert items[2].reason == "corrupt, and checkpoint-50 is good: so"
    assert not any(item.is_set_aside for item in plan(reports[2:], keep=1)), "nothing good is left"


def test_the_newest_verified_ones_stay_by_number_and_not_by_the_order_of_the_text() -> None:
    reports = [report(step) for step in (900, 1000, 3200, 5)]
    assert kept(reports, keep=2) == [3200, 1000]
    assert [item.step for item in plan(reports, keep=2)] == [3200, 1000, 900, 5]


def test_damaged_ones_are_not_counted_and_not_removed() -> None:
    reports = [report(40, Verdict.CORRUPT), report(30, Verdict.INCOMPLETE), report(20), report(10), report(5)]
    assert kept(reports, keep=1) == [40, 30, 20]
    reasons = {item.step: item.reason for item in plan(reports, keep=1)}
    assert reasons[40] == "corrupt, left alone: so"
    assert reasons[20] == "the newest verified one"
    assert reasons[5] == "older than the newest verified one"


def test_what_is_in_use_stays_with_its_reason() -> None:
    reports = [report(step) for step in (5, 10, 15, 20)]
    assert kept(reports, keep=1, held={5}) == [20, 5]
    reasons = {item.step: item.reason for item in plan(reports, keep=1, held={5: "the parent of job 3"})}
    assert reasons[5] == "the parent of job 3"


def test_where_the_newest_are_damaged_the_last_good_ones_stay() -> None:
    reports = [report(step, Verdict.CORRUPT) for step in (50, 40, 30)] + [report(step) for step in (20, 10)]
    assert kept(reports, keep=1) == [50, 40, 30, 20]


def resting(name: str, age_s: float, size: int = 10) -> Resting:
    return Resting(name=name, path=f"/trash/{name}", bytes=size, age_s=age_s)


def test_the_trash_keeps_things_for_their_time_and_says_for_how_long() -> None:
    found = plan_trash([resting("new", 3600), resting("old", 15 * 86_400)], limit_s=14 * 86_400)
    assert [(item.resting.name, item.is_kept) for item in found] == [("old", False), ("new", True)]
    assert found[0].reason == "it was set aside 15 days ago; the limit is 14 days"
    assert found[1].reason == "set aside 1 hours ago; it may lie here for 14 days"


def test_the_trash_gives_way_where_space_is_short_the_oldest_first_and_no_more_than_needed() -> None:
    found = plan_trash([resting(str(age), age) for age in (1, 2, 3)], limit_s=100, missing_bytes=15)
    assert [(item.resting.name, item.is_kept) for item in found] == [("3", False), ("2", False), ("1", True)]
    assert "space is short" in found[0].reason


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_none_is_refused(keep: int) -> None:
    with pytest.raises(UsageError, match="At least one checkpoint"):
        plan([report(5)], keep=keep)


@given(
    st.dictionaries(st.integers(0, 10_000), st.sampled_from(list(Verdict)), max_size=30),
    st.integers(1, 40),
    st.frozensets(st.integers(0, 10_000), max_size=5),
)
def test_the_last_verified_one_and_what_is_in_use_always_stay(
    found: dict[int, Verdict], keep: int, held: frozenset[int]
) -> None:
    reports = [report(step, verdict) for step, verdict in found.items()]
    left = set(kept(reports, keep=keep, held=held))
    verified = sorted(step for step, verdict in found.items() if verdict is Verdict.VERIFIED)
    assert set(verified[-keep:]) <= left
    assert held & set(found) <= left
    assert {step for step, verdict in found.items() if verdict is not Verdict.VERIFIED} <= left
    assert all(item.reason for item in plan(reports, keep=keep, held=dict.fromkeys(held, "in use")))
