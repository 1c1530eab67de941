"""How many answers are right, by one rule for base and trained model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from overnight.demo.facts import Fact

CODE = re.compile(r"(?<![A-Za-z])(?!ISO)[A-Z]{3}(?![A-Za-z])")
"""A word of three capital letters; ISO itself is no code."""

CLEAR_LEAD = 0.5
"""The trained model must be right this much more often, as a share of the questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Right answers out of those asked."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.right / self.asked if self.asked else 0.0

    def __str__(self) -> str:
        return f"{self.right} of {self.asked}"


def given_code(answer: str | None) -> str | None:
    """Return the first code in an answer: what it commits itself to, however it is worded."""
    found = CODE.search(answer or "")
    return found.group() if found else None


def is_right(fact: Fact, answer: str | None) -> bool:
    """Return whether the answer gives the fact's code and no other one before it."""
    return given_code(answer) == fact.code


def score(facts: list[Fact], answers: list[str | None]) -> Score:
    """Return how many answers are right."""
    right = sum(is_right(fact, answer) for fact, answer in zip(facts, answers, strict=True))
    return Score(right=right, asked=len(facts))


def is_clearly_better(trained: Score, base: Score) -> bool:
    """Return whether the trained model beats its base by more than luck or wording."""
    return trained.share - base.share >= CLEAR_LEAD
