"""The demo's data set: real facts, in the shape that the product trains."""

from __future__ import annotations

import json

import pytest

from overnight.demo import facts
from overnight.domain.rows import RowProblem, parse_line

pytest.importorskip("pycountry")


def test_every_country_has_a_code_of_its_own() -> None:
    known = facts.all_facts()
    assert len(known) > 200
    assert len({fact.code for fact in known}) == len(known)
    assert len({fact.country for fact in known}) == len(known)
    assert {fact.country: fact.code for fact in known}["Namibia"] == "NAM"


def test_every_row_is_one_that_the_product_accepts() -> None:
    for fact in facts.all_facts():
        line = json.dumps(facts.row(fact), ensure_ascii=False).encode()
        assert not isinstance(parse_line(line), RowProblem)


def test_the_sample_is_the_same_each_time_and_asks_nothing_twice() -> None:
    first, second = (facts.sample(facts.all_facts(), 40) for _ in range(2))
    assert first == second
    assert len({fact.code for fact in first}) == 40


def test_a_question_is_the_row_without_its_answer() -> None:
    fact = facts.all_facts()[0]
    assert facts.row(fact)["messages"][:-1] == facts.question(fact)
    assert fact.code not in json.dumps(facts.question(fact))
