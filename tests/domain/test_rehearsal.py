"""The choice of earlier rows: the share is kept, each earlier data set gives evenly, and it is ever the same."""

from __future__ import annotations

import random

import pytest

from overnight.domain.rehearsal import (
    Source,
    Trained,
    draw,
    fingerprint,
    in_the_model,
    name_of_row,
    num_wanted,
    quotas,
    sources_of,
)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("own", [1, 7, 64, 1000])
def test_the_share_is_that_of_all_rows_of_the_job(own: int, share: float) -> None:
    wanted = num_wanted(own, share)
    assert abs(wanted - share * (own + wanted)) <= 0.5


def test_half_is_as_many_and_nine_tenths_nine_times_as_many() -> None:
    assert num_wanted(10, 0.5) == 10
    assert num_wanted(10, 0.9) == 90
    assert num_wanted(10, 0.0) == 0


@pytest.mark.parametrize(
    ("available", "wanted", "expected"),
    [
        ([10, 10, 10], 9, [3, 3, 3]),
        ([10, 10, 10], 10, [4, 3, 3]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([2, 1, 10], 12, [2, 1, 9]),
        ([2, 1, 3], 12, [2, 1, 3]),
        ([0, 5], 3, [0, 3]),
        ([], 3, []),
        ([4, 4], 0, [0, 0]),
    ],
    ids=str,
)
def test_each_gives_the_same_and_what_a_small_one_lacks_the_others_give(
    available: list[int], wanted: int, expected: list[int]
) -> None:
    assert quotas(available, wanted) == expected


def test_whatever_the_sizes_the_division_is_full_fair_and_possible() -> None:
    source = random.Random(5)
    for _ in range(300):
        available = [source.randint(0, 30) for _ in range(source.randint(1, 8))]
        wanted = source.randint(0, 120)
        given = quotas(available, wanted)
        assert sum(given) == min(wanted, sum(available))
        assert all(0 <= part <= count for part, count in zip(given, available, strict=True))
        not_empty = [part for part, count in zip(given, available, strict=True) if part < count]
        assert not not_empty or max(given) - min(not_empty) <= 1


def test_a_draw_is_the_same_in_every_order_of_reading_and_a_larger_one_begins_with_it() -> None:
    numbers = list(range(1, 500))
    shuffled = random.Random(1).sample(numbers, len(numbers))
    few = draw(numbers, 20, seed=42, dataset="b", source="a")
    assert few == draw(shuffled, 20, seed=42, dataset="b", source="a")
    assert len(set(few)) == 20
    assert draw(numbers, 60, seed=42, dataset="b", source="a")[:20] == few
    assert few == [199, 220, 254, 236, 52, 368, 479, 345, 112, 28, 231, 324, 275, 99, 169, 288, 9, 434, 168, 115]


def test_another_seed_another_job_and_another_earlier_one_draw_other_rows() -> None:
    numbers = range(1, 500)
    drawn = [
        tuple(draw(numbers, 20, seed=seed, dataset=dataset, source=source))
        for seed, dataset, source in [(42, "b", "a"), (43, "b", "a"), (42, "c", "a"), (42, "b", "c")]
    ]
    assert len(set(drawn)) == 4


def test_rows_of_each_part_of_a_file_are_drawn() -> None:
    drawn = draw(range(1, 10_001), 1000, seed=42, dataset="b", source="a")
    parts = [sum(1 for number in drawn if begin < number <= begin + 1000) for begin in range(0, 10_000, 1000)]
    assert min(parts) > 60


def test_earlier_ones_count_once_in_their_order_and_never_the_job_s_own() -> None:
    jobs = [
        Trained(dataset="a", holdout=0.1, left_out=[7]),
        Trained(dataset="b", holdout=0.0, left_out=[]),
        Trained(dataset="own", holdout=0.0, left_out=[]),
        Trained(dataset="a", holdout=0.3, left_out=[2]),
        Trained(dataset="a", holdout=0.0, left_out=[]),
    ]
    assert sources_of(jobs, dataset="own") == [Source(dataset="a", holdout=0.3, left_out=[2, 7]), Source(dataset="b")]


def test_the_fingerprint_tells_every_change_of_what_is_replayed() -> None:
    a, b = Source(dataset="a"), Source(dataset="b")
    variants = [
        fingerprint(0.5, [a, b]),
        fingerprint(0.4, [a, b]),
        fingerprint(0.5, [b, a]),
        fingerprint(0.5, [a]),
        fingerprint(0.5, [Source(dataset="a", holdout=0.1), b]),
        fingerprint(0.5, [Source(dataset="a", left_out=[1]), b]),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint(0.5, [a, b]) == variants[0]


def test_a_job_counts_as_earlier_where_the_model_was_trained_on_it_and_did_not_go_back_since() -> None:
    jobs = [
        Trained(dataset="a", holdout=0, left_out=[], job=1, end_step=10),
        Trained(dataset="b", holdout=0, left_out=[], job=2, end_step=20),
        Trained(dataset="c", holdout=0, left_out=[], job=3, end_step=15),
    ]
    assert [one.job for one in in_the_model(jobs, known={1, 3}, step=15)] == [1, 3]
    assert [one.job for one in in_the_model(jobs, known={1, 2, 3}, step=15)] == [1, 3]
    assert [one.job for one in in_the_model(jobs, known=None, step=None)] == [1, 2, 3]


def test_a_replayed_row_is_not_taken_for_one_of_the_job_s_own_file() -> None:
    assert name_of_row(30, own=30) == "30"
    assert name_of_row(32, own=30) == "2 of those replayed from earlier files"
