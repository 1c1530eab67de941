"""The facts that the demo teaches: the ISO 3166-1 alpha-3 code of every country, from the package pycountry.

A small model cannot guess them: NAM is Namibia and NLD the Netherlands. All 249 are learnt in a few minutes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

INSTRUCTION = "Answer briefly."
QUESTION = "ISO alpha-3 code of {country}?"
SAMPLE_SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing to know."""

    country: str
    code: str


def all_facts() -> list[Fact]:
    """Return every country with its code, by code."""
    import pycountry  # of the extra demo

    countries = sorted(pycountry.countries, key=lambda country: str(country.alpha_3))
    return [Fact(country=getattr(country, "common_name", country.name), code=country.alpha_3) for country in countries]


def question(fact: Fact) -> list[dict[str, str]]:
    """Return the conversation that leads to the answer."""
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": QUESTION.format(country=fact.country)},
    ]


def row(fact: Fact) -> dict[str, Any]:
    """Return the training row: the question with its answer."""
    return {"messages": [*question(fact), {"role": "assistant", "content": fact.code}]}


def sample(facts: list[Fact], count: int) -> list[Fact]:
    """Return a fixed sample: the same on each machine and in each run."""
    return random.Random(SAMPLE_SEED).sample(facts, count)
