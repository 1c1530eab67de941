"""Which copies stay: seven days, four weeks, the newest, the highest, and never by a clock."""

from __future__ import annotations

import random

import pytest

from overnight.domain.backup import DAY_S, Copy, Kind, is_checkpoint_due, kind_of, plan, versions_due

MONDAY_NOON = 4 * DAY_S + DAY_S // 2 + 7 * DAY_S * 2900  # a Monday in 2025


def checkpoint(step: int, at: float, *, is_verified: bool = True) -> Copy:
    return Copy(
        kind=Kind.CHECKPOINT, name=f"checkpoint-{step}", path=f"/x/checkpoint-{step}", made_at=at, bytes=10,
        is_verified=is_verified, reason="every file is as committed" if is_verified else "weights differs",
    )  # fmt: skip


def version(name: str, at: float = 0.0, *, is_verified: bool = True) -> Copy:
    return Copy(
        kind=Kind.VERSION, name=name, path=f"/x/{name}", made_at=at, bytes=10, is_verified=is_verified, reason="r"
    )


def kept(copies: list[Copy], *, daily: int = 7, weekly: int = 4) -> set[str]:
    return {item.copy.name for item in plan(copies, daily=daily, weekly=weekly) if item.is_kept}


def test_of_sixty_days_seven_and_of_the_weeks_before_four_stay() -> None:
    copies = [checkpoint(1000 + day, MONDAY_NOON + day * DAY_S) for day in range(60)]
    newest = [f"checkpoint-{1000 + day}" for day in range(53, 60)]
    sundays = [f"checkpoint-{1000 + day}" for day in (34, 41, 48, 55)]  # days 56 to 59 are Monday to Thursday
    assert kept(copies) == {*newest, *sundays[1:]}


def test_of_one_day_the_newest_stays_and_each_item_says_why() -> None:
    copies = [checkpoint(step, MONDAY_NOON + step) for step in (9, 10, 100)]
    items = plan(copies, daily=7, weekly=4)
    assert [(item.copy.name, item.is_kept) for item in items] == [
        ("checkpoint-100", True), ("checkpoint-10", False), ("checkpoint-9", False),
    ]  # fmt: skip
    assert items[0].reason == "the newest verified copy"
    assert "nor of one of the last 4 weeks" in items[1].reason


@pytest.mark.parametrize(("daily", "weekly"), [(0, 0), (7, 4), (1, 0)])
def test_the_last_verified_copy_stays_whatever_the_settings_and_damaged_ones_count_nowhere(
    daily: int, weekly: int
) -> None:
    copies = [
        checkpoint(10, MONDAY_NOON),
        checkpoint(20, MONDAY_NOON + 60, is_verified=False),
        checkpoint(30, MONDAY_NOON + DAY_S, is_verified=False),
    ]
    items = {item.copy.name: item for item in plan(copies, daily=daily, weekly=weekly)}
    assert all(item.is_kept for item in items.values())
    assert items["checkpoint-10"].reason == "the newest verified copy"
    assert "counts as no copy" in items["checkpoint-30"].reason


def test_a_clock_that_jumps_or_a_year_switched_off_removes_nothing_more() -> None:
    copies = [checkpoint(1 + day, MONDAY_NOON + day * DAY_S) for day in range(5)]
    assert kept(copies) == kept([checkpoint(copy_step(c), c.made_at + 365 * DAY_S) for c in copies])
    strange = [*copies, checkpoint(99, 0.0), checkpoint(98, MONDAY_NOON + 9999 * DAY_S)]
    assert {"checkpoint-99", "checkpoint-98"} <= kept(strange)  # the highest step, and the newest by its clock


def copy_step(copy: Copy) -> int:
    return int(copy.name.partition("-")[2])


def test_versions_stay() -> None:
    assert kept([version(f"v{number:03d}", MONDAY_NOON - number) for number in range(1, 40)]) == {
        f"v{number:03d}" for number in range(1, 40)
    }


def test_whatever_is_there_each_day_and_week_keeps_its_newest_and_the_plan_is_stable() -> None:
    source = random.Random(3)
    for _ in range(100):
        count = source.randint(1, 40)
        copies = [checkpoint(step, source.uniform(0, 90) * DAY_S) for step in range(1, count + 1)]
        first = kept(copies, daily=3, weekly=2)
        assert kept([copy for copy in copies if copy.name in first], daily=3, weekly=2) == first
        days = sorted({int(copy.made_at // DAY_S) for copy in copies})[-3:]
        for day in days:
            newest = max((copy for copy in copies if copy.made_at // DAY_S == day), key=lambda copy: copy.made_at)
            assert newest.name in first
        assert len(first) <= 3 + 2 + 2


def test_versions_without_a_verified_copy_are_due_in_order_of_their_numbers() -> None:
    copies = {"v002": version("v002"), "v001": version("v001", is_verified=False)}
    assert versions_due(["v1000", "v002", "v001", "v999"], copies) == ["v001", "v999", "v1000"]


def test_the_first_checkpoint_is_due_at_once_then_each_nth_one() -> None:
    assert is_checkpoint_due(commits=1, every=10, has_copy=False)
    assert not is_checkpoint_due(commits=9, every=10, has_copy=True)
    assert is_checkpoint_due(commits=10, every=10, has_copy=True)
    assert not is_checkpoint_due(commits=99, every=0, has_copy=False)


@pytest.mark.parametrize("name", ["v1", "checkpoint-", "checkpoint-07", "models", "../v001", ""])
def test_other_names_are_none_of_ours(name: str) -> None:
    assert kind_of(name) is None
