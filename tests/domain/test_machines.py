"""The three machines: the table is the drawing, and each one can always come to its end."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest

from overnight.domain import attempt, checkpoint, job
from overnight.domain.attempt import AttemptMove, AttemptState
from overnight.domain.checkpoint import CheckpointMove, CheckpointState
from overnight.domain.job import ENDED, FINAL, JobMove, JobState

MACHINES = [
    pytest.param(job, JobState, JobMove, {JobState.QUEUED, JobState.REJECTED}, set(FINAL), id="job"),
    pytest.param(attempt, AttemptState, AttemptMove, {AttemptState.STARTING}, {AttemptState.ENDED}, id="attempt"),
    pytest.param(
        checkpoint, CheckpointState, CheckpointMove, {CheckpointState.WRITING}, {CheckpointState.DELETED},
        id="checkpoint",
    ),
]  # fmt: skip
machines = pytest.mark.parametrize(("module", "states", "moves", "starts", "ends"), MACHINES)


def written_table(module: ModuleType) -> list[tuple[str, str, str]]:
    """Return (state, verb, state) of every move that the docstring writes down."""
    found = []
    for sources, target, verb in re.findall(
        r"^ +([A-Z]+(?: \| [A-Z]+)*) -> ([A-Z]+) +([a-z_]+)$", module.__doc__ or "", flags=re.MULTILINE
    ):
        found += [(source, verb, target) for source in sources.split(" | ")]
    return found


def reachable(moves: dict[Any, Any], starts: set[Any]) -> set[Any]:
    seen, edge = set(starts), set(starts)
    while edge:
        edge = {target for (source, _), target in moves.items() if source in edge} - seen
        seen |= edge
    return seen


@machines
def test_the_docstring_holds_the_very_table(module: Any, states: Any, moves: Any, starts: Any, ends: Any) -> None:
    written = written_table(module)
    assert len(written) == len(set(written))
    assert set(written) == {(s.name, v.value, t.name) for (s, v), t in module.MOVES.items()}


@machines
def test_the_drawing_shows_each_state_and_each_verb(
    module: Any, states: Any, moves: Any, starts: Any, ends: Any
) -> None:
    drawing = (module.__doc__ or "").partition(" -> ")[0]
    names = [state.name for state in states if state is not JobState.REJECTED]
    assert [word for word in [*names, *(verb.value for verb in moves)] if word not in drawing] == []


@machines
def test_a_state_and_a_verb_lead_to_one_state_only(
    module: Any, states: Any, moves: Any, starts: Any, ends: Any
) -> None:
    written = [(source, verb) for source, verb, _ in written_table(module)]
    assert len(written) == len(set(written))
    assert all(isinstance(target, states) for target in module.MOVES.values())


@machines
def test_each_verb_is_used(module: Any, states: Any, moves: Any, starts: Any, ends: Any) -> None:
    assert {verb for _, verb in module.MOVES} == set(moves)


@machines
def test_each_state_is_reached(module: Any, states: Any, moves: Any, starts: Any, ends: Any) -> None:
    assert reachable(module.MOVES, starts) == set(states)


@machines
def test_from_each_state_an_end_is_reached(module: Any, states: Any, moves: Any, starts: Any, ends: Any) -> None:
    for state in states:
        assert reachable(module.MOVES, {state}) & ends, state


@machines
def test_nothing_leaves_an_end(module: Any, states: Any, moves: Any, starts: Any, ends: Any) -> None:
    assert [(s, v) for s, v in module.MOVES if s in ends] == []


def test_an_ended_job_is_left_by_the_operator_only() -> None:
    assert {verb for state, verb in job.MOVES if state in ENDED} == {JobMove.RESUBMIT, JobMove.ACCEPT}


def test_an_attempt_id_sorts_as_it_was_launched() -> None:
    assert attempt.attempt_id(12, 2) == "000012-02"
    assert attempt.attempt_id(9, 10) < attempt.attempt_id(10, 1)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-48", 48),
        ("checkpoint-0", 0),
        ("checkpoint-", None),
        ("checkpoint-abc", None),
        ("checkpoint-5.tmp", None),
        ("checkpoint--5", None),
        ("checkpoint-007", None),
        ("checkpoint-٣", None),
        ("checkpoint-9999999999999999999999", None),
        ("other-5", None),
    ],
)
def test_only_our_own_names_are_checkpoints(name: str, step: int | None) -> None:
    assert checkpoint.step_of(name) == step
