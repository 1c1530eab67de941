"""Scoring: one rule for base and trained model, fair to an answer in a sentence, hard on guessing."""

from __future__ import annotations

import pytest

from overnight.demo import scoring
from overnight.demo.facts import Fact
from overnight.demo.scoring import Score

NAMIBIA = Fact(country="Namibia", code="NAM")


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("NAM", True),
        ("The code is NAM.", True),
        ("**NAM**", True),
        ("The ISO 3166-1 alpha-3 code of Namibia is 'NAM'", True),
        ("NLD", False),
        ("NLD or NAM", False),
        ("NAMIBIA", False),
        ("nam", False),
        ("", False),
        (None, False),
    ],
)
def test_an_answer_is_right_when_it_names_the_code_before_any_other(answer: str | None, is_right: bool) -> None:
    assert scoring.is_right(NAMIBIA, answer) is is_right


def test_the_score_counts_right_answers() -> None:
    assert scoring.score([NAMIBIA, NAMIBIA], ["NAM", None]) == Score(right=1, asked=2)


@pytest.mark.parametrize(
    ("trained", "base", "expected"), [(38, 0, True), (20, 0, True), (19, 0, False), (40, 30, False), (0, 0, False)]
)
def test_only_a_clear_lead_counts(trained: int, base: int, expected: bool) -> None:
    better = scoring.is_clearly_better(Score(right=trained, asked=40), Score(right=base, asked=40))
    assert better is expected
