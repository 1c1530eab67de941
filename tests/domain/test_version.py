"""Ids of versions are exact, and go on from the last that was ever given; descriptions are text."""

from __future__ import annotations

import pytest

from overnight.domain.errors import UsageError
from overnight.domain.version import (
    DESCRIPTION_LIMIT,
    as_description,
    base_model_of,
    next_id,
    number_of,
    version_id,
    version_of,
)


def test_ids_count_past_three_digits() -> None:
    assert [version_id(number) for number in (1, 10, 999, 1000)] == ["v001", "v010", "v999", "v1000"]
    assert next_id([]) == "v001"
    assert next_id(["v001", "v999", "junk", "v01"]) == "v1000"
    assert next_id(["v1000", "v999"]) == "v1001"


@pytest.mark.parametrize("text", ["v1", "v10", "v01", "v000", "v0001", "V001", "v001 ", "../v001", "", "v", "v-01"])
def test_what_only_looks_like_an_id_is_none(text: str) -> None:
    assert number_of(text) is None


def test_a_base_model_tells_its_version() -> None:
    assert version_of(base_model_of("v012")) == "v012"
    assert version_of("./models/v1000/") == "v1000"
    for other in ("builtin:tiny", "models/v1", "models/v001/adapter", "/x/models/v001", None, 7):
        assert version_of(other) is None


@pytest.mark.parametrize(
    "text", ["", "../../x", "a\nb", "🙂" * 500, "x" * 500], ids=["empty", "path", "line", "emoji", "long"]
)
def test_a_description_is_kept_as_it_is(text: str) -> None:
    assert as_description(text) == text


def test_bytes_that_are_no_text_are_spelt_out_and_a_book_is_refused() -> None:
    assert as_description("a\udcffb") == "a\\udcffb"
    with pytest.raises(UsageError):
        as_description("x" * (DESCRIPTION_LIMIT + 1))
