"""When a spare trainer is started, kept and ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain import spare
from overnight.domain.spare import Act, Facts, State

NONE = Facts(
    state=State.NONE, is_wanted=True, has_work=True, is_trainer_loading=False, fits=True, loading_s=0.0,
    load_limit_s=900.0, idle_s=0.0, troubles=0, last_trouble_s=float("inf"),
)  # fmt: skip
READY = replace(NONE, state=State.READY)


@pytest.mark.parametrize(
    ("facts", "act"),
    [
        pytest.param(NONE, Act.START, id="work and no spare"),
        pytest.param(replace(NONE, has_work=False), Act.KEEP, id="no work, no spare"),
        pytest.param(replace(NONE, is_wanted=False), Act.KEEP, id="switched off"),
        pytest.param(replace(NONE, is_trainer_loading=True), Act.KEEP, id="a trainer loads, and goes first"),
        pytest.param(replace(NONE, troubles=1, last_trouble_s=0.0), Act.START, id="one mishap is forgiven"),
        pytest.param(replace(NONE, troubles=2, last_trouble_s=29.0), Act.KEEP, id="two mishaps, too soon"),
        pytest.param(replace(NONE, troubles=2, last_trouble_s=31.0), Act.START, id="two mishaps, long ago"),
        pytest.param(READY, Act.KEEP, id="there, and work"),
        pytest.param(replace(READY, has_work=False, idle_s=299.0), Act.KEEP, id="idle for a while"),
        pytest.param(replace(READY, has_work=False, idle_s=301.0), Act.END, id="idle for long"),
        pytest.param(replace(READY, is_wanted=False), Act.END, id="everything ends"),
        pytest.param(replace(READY, fits=False), Act.END, id="a library was replaced"),
        pytest.param(replace(READY, state=State.OVER), Act.END, id="it died"),
        pytest.param(replace(READY, state=State.LOADING, loading_s=899.0), Act.KEEP, id="still loading"),
        pytest.param(replace(READY, state=State.LOADING, loading_s=901.0), Act.END, id="loading for ever"),
    ],
)
def test_what_is_done_about_the_spare(facts: Facts, act: Act) -> None:
    decision = spare.decide(facts)
    assert decision.act is act
    assert decision.reason


def test_what_was_of_no_use_is_trouble_and_what_was_ended_on_purpose_is_not() -> None:
    assert spare.decide(replace(READY, state=State.OVER)).is_trouble
    assert spare.decide(replace(READY, state=State.LOADING, loading_s=901.0)).is_trouble
    assert not spare.decide(replace(READY, fits=False)).is_trouble
    assert not spare.decide(replace(READY, has_work=False, idle_s=301.0)).is_trouble


def test_pauses_between_spares_of_no_use_grow_and_end_growing() -> None:
    pauses = [spare.pause_after(troubles) for troubles in range(40)]
    assert pauses[:4] == [0.0, 0.0, 30.0, 60.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == spare.LONGEST_PAUSE_S
