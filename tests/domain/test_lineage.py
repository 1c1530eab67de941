"""Of which jobs a model is made, by how far its attempts were saved."""

from __future__ import annotations

import pytest

from overnight.domain.lineage import Reached, line_of


@pytest.mark.parametrize(
    ("reached", "stands", "expected"),
    [
        ([(1, 0, 8), (2, 8, 16)], 16, {1: 8, 2: 16}),
        ([(1, 0, 5), (1, 5, 8)], 8, {1: 8}),
        ([(1, 0, 8), (2, 8, 16)], 8, {1: 8}),
        ([(1, 0, 8), (2, 8, 16), (3, 8, 20)], 20, {1: 8, 3: 20}),
        ([(1, 0, 20), (2, 15, 30)], 30, {1: 15, 2: 30}),
        ([(1, -1, 16), (2, 16, 20)], 10, {1: 10}),
        ([(1, 0, 8)], None, {1: 8}),
        ([], 8, {}),
    ],
    ids=[
        "one after the other", "resumed", "the model went back", "one was left behind", "one in part",
        "came back with a version", "nobody can tell", "nothing",
    ],
)  # fmt: skip
def test_a_job_is_in_the_model_as_far_as_nothing_went_on_from_before_it(
    reached: list[tuple[int, int, int]], stands: int | None, expected: dict[int, int]
) -> None:
    line = [Reached(job=job, first_step=first, step=step) for job, first, step in reached]
    assert line_of(line, stands=stands) == expected
