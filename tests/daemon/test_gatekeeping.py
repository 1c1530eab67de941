"""The judge in the loop: which sets a trainer judges, and what becomes of what it found, killed in the middle too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.database import judgements
from overnight.disk import attempts
from overnight.domain.job import JobState
from overnight.status import judge, snapshot, to_json, words
from simulated_rig import Rig

PATIENCE_S = 90


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path / "w", monkeypatch)
    yield rig
    rig.end()


def finish(rig: Rig) -> None:
    context = rig.context()
    ended = {JobState.SUCCEEDED, JobState.FAILED}
    rig.tick_until(context, lambda: all(job.state in ended for job in rig.jobs()), timeout=PATIENCE_S)


def test_each_job_judges_its_own_rows_and_those_of_all_earlier_jobs(rig: Rig) -> None:
    rig.make(files=3, rows=20, evaluation__holdout=0.2)
    finish(rig)
    connection = rig.connect()
    cells = judgements.cells(connection, current=True)
    assert [(cell.job, cell.held_out.job, cell.is_own) for cell in cells] == [
        (1, 1, True), (2, 1, False), (2, 2, True), (3, 1, False), (3, 2, False), (3, 3, True),
    ]  # fmt: skip
    matrix = judge.matrix(connection)
    assert [len(job["cells"]) for job in matrix["jobs"]] == [1, 2, 3]
    assert [skill["forgotten"] for skill in matrix["skills"]] == [0.0, 0.0, 0.0]
    assert [event["data"]["verdict"] for event in rig.events("job.judged")] == ["passed"] * 3
    connection.close()


def test_without_held_out_rows_nothing_is_judged_and_the_gate_says_so(rig: Rig) -> None:
    rig.make(files=1, rows=20)
    finish(rig)
    connection = rig.connect()
    shot = snapshot(rig.layout, connection, now=1e9)
    connection.close()
    assert rig.events("job.judged") == []
    assert to_json(shot)["judge"]["has_something_to_judge_by"] is False
    assert dict(words.facts(shot))["gate"].startswith("warn, nothing to judge by: no rows are held out")
    assert attempts.read_spec(rig.layout.attempt("000001-01")).held_out == []


def test_harm_is_told_in_plain_numbers_under_warn(rig: Rig) -> None:
    rig.make(files=2, rows=20, evaluation__holdout=0.2)
    rig.simulate(harm=2)
    finish(rig)
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED] * 2
    connection = rig.connect()
    shot = snapshot(rig.layout, connection, now=1e9)
    connection.close()
    told = dict(words.facts(shot))
    assert "loss 4.000 -> 4.500" in told["learnt"]
    assert "warned: file0.jsonl is forgotten" in told["learnt"]
    assert told["forgotten"] == "file0.jsonl 71 % forgotten (loss 0.500 -> 3.000)"
    assert to_json(shot)["judge"]["skills"][0]["forgotten"] == pytest.approx(2.5 / 3.5)
    assert rig.events("job.judged")[-1]["level"] == "warning"


def test_killed_in_the_judging_the_next_attempt_judges_and_trains_nothing(rig: Rig) -> None:
    rig.make(files=1, rows=20, evaluation__holdout=0.2)
    rig.simulate(fault="kill@1000000:1")
    finish(rig)
    second = attempts.read_spec(rig.layout.attempt("000001-02"))
    assert second.mode == "judge"
    ledger = rig.model()["ledger"]
    assert len(ledger) == len(set(ledger)) == 20
    connection = rig.connect()
    assert [cell.after is not None for cell in judgements.cells(connection, current=True)] == [True]
    connection.close()
    assert rig.jobs()[0].state is JobState.SUCCEEDED
