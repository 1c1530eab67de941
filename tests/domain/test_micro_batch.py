"""A smaller forward pass with the same optimizer step."""

from __future__ import annotations

import pytest

from overnight.domain.micro_batch import MicroBatch, of_settings, smaller, with_batch


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((8, 1), (4, 2)),
        ((4, 2), (2, 4)),
        ((2, 4), (1, 8)),
        ((1, 8), None),
        ((1, 1), None),
        ((6, 1), (3, 2)),
        ((5, 1), (1, 5)),
        ((9, 1), (3, 3)),
        ((7, 3), (3, 7)),
        ((3, 4), (1, 12)),
        ((5, 2), (2, 5)),
    ],
)
def test_the_rows_of_a_step_stay_the_same(before: tuple[int, int], after: tuple[int, int] | None) -> None:
    found = smaller(MicroBatch(*before))
    assert found == (MicroBatch(*after) if after is not None else None)


@pytest.mark.parametrize("rows", range(1, 65))
@pytest.mark.parametrize("passes", [1, 3, 4])
def test_it_ends_at_one_row_and_never_changes_the_product(rows: int, passes: int) -> None:
    batch: MicroBatch | None = MicroBatch(rows, passes)
    seen = 0
    while batch is not None:
        last, batch = batch, smaller(batch)
        assert last.rows * last.passes == rows * passes
        seen += 1
    assert last.rows == 1
    assert seen <= 7


def test_settings_keep_everything_else() -> None:
    settings = {"seed": 1, "train": {"batch_size": 8, "gradient_accumulation_steps": 2, "epochs": 3}}
    changed = with_batch(settings, MicroBatch(4, 4))
    assert changed == {"seed": 1, "train": {"batch_size": 4, "gradient_accumulation_steps": 4, "epochs": 3}}
    assert of_settings(settings) == MicroBatch(8, 2)
