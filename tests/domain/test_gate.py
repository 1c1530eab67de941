"""The gate: what a job may undo, that it must learn something, and that what it learnt hangs on the question."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from overnight.domain import gate, judgement
from overnight.domain.gate import Decision, Verdict
from overnight.domain.judgement import Cell, HeldOut, Score, Skill


def held_out(name: str, job: int) -> HeldOut:
    return HeldOut(
        id=f"{name}:0.1", dataset=name, share=0.1, examples=9, supervise="assistant", file=f"{name}.jsonl", job=job
    )


def score(loss: float, **changes: Any) -> Score:
    return dataclasses.replace(Score(loss=loss, accuracy=0.5, rows=20, tokens=100), **changes)


def cell(name: str, job: int, before: float | None, after: float | None, **changes: Any) -> Cell:
    made = Cell(
        job=job, held_out=held_out(name, int(changes.get("is_own", False)) * job), is_own=False,
        before=score(before) if before is not None else None, after=score(after) if after is not None else None,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


TAUGHT = [cell("old", 1, 4.0, 1.0, is_own=True)]
"""Job 1 taught 'old': 3.0 were learnt, so 0.3 may be undone with a margin of 0.1."""


def known(cells: list[Cell]) -> dict[str, Skill]:
    return {skill.held_out.id: skill for skill in judgement.skills(cells)}


def decide(*cells: Cell, history: list[Cell] | None = None, gate_is: str = "block", margin: float = 0.1) -> Decision:
    return gate.decide(cells, known(TAUGHT if history is None else history), gate=gate_is, margin=margin)


@pytest.mark.parametrize(("after", "verdict"), [(0.8, Verdict.PASSED), (1.29, Verdict.PASSED), (1.31, Verdict.BLOCKED)])
def test_a_tenth_of_what_was_learnt_may_be_undone_and_no_more(after: float, verdict: Verdict) -> None:
    assert decide(cell("old", 2, 1.0, after)).verdict is verdict


def test_many_small_harms_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    history = [*TAUGHT, cell("old", 2, 1.0, 1.2)]
    found = decide(cell("old", 3, 1.2, 1.35), history=history)
    assert found.verdict is Verdict.BLOCKED
    assert "12 % of what was learnt is undone" in found.reason
    assert found.harmed == {"old:0.1"}


def test_a_job_that_mends_is_never_blamed_for_what_others_undid() -> None:
    assert decide(cell("old", 3, 3.0, 2.9), history=[*TAUGHT, cell("old", 2, 1.0, 3.0)]).verdict is Verdict.PASSED


def test_harm_that_was_let_pass_is_the_new_mark() -> None:
    accepted = [*TAUGHT, cell("old", 2, 1.0, 2.0, is_let_pass=True)]
    assert decide(cell("old", 3, 2.0, 2.1), history=accepted).verdict is Verdict.PASSED
    assert decide(cell("old", 3, 2.0, 2.3), history=accepted).verdict is Verdict.BLOCKED
    assert known(accepted)["old:0.1"].forgotten == pytest.approx(1 / 3)  # what is told is told by the best there was


@pytest.mark.parametrize("after", [4.0, 4.1])
def test_a_job_must_make_its_own_rows_better(after: float) -> None:
    found = decide(cell("new", 2, 4.0, after, is_own=True))
    assert found.verdict is Verdict.BLOCKED
    assert "nothing is learnt" in found.reason
    assert decide(cell("new", 2, 4.0, 3.9, is_own=True)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("pairs", "pairing", "error", "verdict"),
    [
        (40, 0.5, 0.05, Verdict.PASSED),
        (40, 0.1, 0.05, Verdict.BLOCKED),
        (40, 0.015, 0.001, Verdict.BLOCKED),
        (7, 0.0, 0.05, Verdict.PASSED),
        (0, None, None, Verdict.PASSED),
    ],
    ids=["beyond doubt", "in doubt", "too little", "too few", "none"],
)
def test_what_is_learnt_must_hang_on_the_question(pairs: int, pairing: Any, error: Any, verdict: Verdict) -> None:
    after = score(1.0, pairs=pairs, pairing=pairing, pairing_error=error)
    own = dataclasses.replace(cell("new", 2, 4.0, 1.0, is_own=True), after=after)
    assert decide(own).verdict is verdict


def test_a_file_that_is_trained_again_need_not_get_better_and_must_not_get_worse() -> None:
    assert decide(cell("old", 2, 1.0, 1.1, is_own=True)).verdict is Verdict.PASSED
    assert decide(cell("old", 2, 1.0, 1.5, is_own=True)).verdict is Verdict.BLOCKED


def test_what_could_not_be_judged_is_not_let_through() -> None:
    found = decide(cell("new", 2, 4.0, None, is_own=True, skipped="it took longer than 3 s"))
    assert found.verdict is Verdict.BLOCKED
    assert found.reason == "new.jsonl could not be judged: it took longer than 3 s"
    assert decide(cell("old", 2, None, 1.0)).verdict is Verdict.PASSED  # its mark is known


def test_the_gate_tells_blocks_or_lets_pass() -> None:
    harm = cell("old", 2, 1.0, 3.0)
    found = {kind: decide(harm, gate_is=kind) for kind in ("off", "warn", "block")}
    assert [one.verdict for one in found.values()] == [Verdict.PASSED, Verdict.WARNED, Verdict.BLOCKED]
    assert all("old.jsonl is forgotten" in one.reason and one.harmed for one in found.values())
    assert decide().verdict is Verdict.UNJUDGED


def test_a_set_that_was_never_learnt_is_measured_by_its_loss() -> None:
    history = [cell("odd", 1, 2.0, 2.5, is_own=True, is_let_pass=True)]
    assert decide(cell("odd", 2, 2.5, 2.7), history=history).verdict is Verdict.PASSED
    assert decide(cell("odd", 2, 2.5, 2.8), history=history).verdict is Verdict.BLOCKED
