"""Which checkpoints stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.errors import UsageError
from overnight.domain.retention import plan


def report(step: int, verdict: Verdict = Verdict.VERIFIED) -> CheckpointReport:
    return CheckpointReport(
        step=step, path=f"/model/checkpoint-{step}", verdict=verdict, reason="so", bytes=10, manifest=None
    )


def kept(reports: list[CheckpointReport], *, keep: int, in_use: frozenset[int] = frozenset()) -> list[int]:
    return [item.step for item in plan(reports, keep=keep, in_use=in_use) if item.is_kept]


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
    assert reasons[5] == "older than the 1 newest verified ones"


def test_what_is_in_use_stays() -> None:
    assert kept([report(step) for step in (5, 10, 15, 20)], keep=1, in_use=frozenset({5})) == [20, 5]


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
    found: dict[int, Verdict], keep: int, in_use: frozenset[int]
) -> None:
    reports = [report(step, verdict) for step, verdict in found.items()]
    left = set(kept(reports, keep=keep, in_use=in_use))
    verified = sorted(step for step, verdict in found.items() if verdict is Verdict.VERIFIED)
    assert set(verified[-keep:]) <= left
    assert in_use & set(found) <= left
    assert {step for step, verdict in found.items() if verdict is not Verdict.VERIFIED} <= left
    assert all(item.reason for item in plan(reports, keep=keep, in_use=in_use))
