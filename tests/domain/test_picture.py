"""Lengths of time and moments, as people read them."""

from __future__ import annotations

import pytest

from overnight.domain.picture import age, iso
from overnight.domain.printable import shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (8, "8 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (400_000, "4 days"),
    ],
)
def test_a_length_of_time_has_its_natural_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_moment_is_utc() -> None:
    assert iso(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert iso(None) is None


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain.jsonl", "plain.jsonl"),
        ("größe-日本.jsonl", "größe-日本.jsonl"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("rtl\u202egpj", "rtl\\u202egpj"),
        ("\udcff", "\\udcff"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(text: str, safe: str) -> None:
    assert shown(text) == safe
