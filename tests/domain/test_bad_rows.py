"""How many rows may be left out."""

from __future__ import annotations

import pytest

from overnight.domain.bad_rows import left_out


@pytest.mark.parametrize(
    ("before", "found", "of", "expected"),
    [
        ([], [7], 100, [7]),
        ([9], [7, 3], 100, [3, 7, 9]),
        ([7], [7], 100, None),
        ([], [], 100, None),
        ([1, 2, 3], [4], 39, None),
        ([1, 2, 3], [4], 40, [1, 2, 3, 4]),
        ([], [2], 3, [2]),
        ([2], [1], 3, None),
    ],
)
def test_new_bad_rows_are_left_out_up_to_a_tenth(
    before: list[int], found: list[int], of: int, expected: list[int] | None
) -> None:
    assert left_out(before, found, of=of) == expected
