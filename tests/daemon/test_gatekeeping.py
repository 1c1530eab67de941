"""The judge in the loop: which sets a trainer judges, and what becomes of what it found, killed in the middle too."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight import cli
from overnight.control import candidates as control
from overnight.database import judgements, queue
from overnight.disk import attempts, checkpoints
from overnight.domain import judgement
from overnight.domain.checkpoint import Verdict
from overnight.domain.errors import FailedError, UsageError
from overnight.domain.job import JobMove, JobState
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
    matrix = judge.matrix(rig.layout, connection)
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


def blocked(rig: Rig, *, harm: int = 2, files: int = 2) -> None:
    """Train jobs of which one does harm, under a gate that blocks."""
    rig.make(files=files, rows=20, evaluation__holdout=0.2, evaluation__gate="block")
    rig.simulate(harm=harm)
    finish(rig)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_job_that_harms_is_kept_aside_and_the_model_stays_where_it_was(rig: Rig) -> None:
    rig.make(files=1, rows=20, evaluation__holdout=0.2, evaluation__gate="block")
    finish(rig)
    before = tree(rig.layout.model)
    rig.submit("harm.jsonl", rows=20)
    rig.simulate(harm=2)
    finish(rig)
    job = rig.jobs()[1]
    assert job.state is JobState.FAILED
    assert job.reason.startswith("kept aside by the gate: file0.jsonl is forgotten: its loss rose from 0.500 to 3.000")
    assert job.reason.endswith("overnight accept 2 makes it the model all the same, overnight discard 2 drops it")
    assert tree(rig.layout.model) == before
    aside = rig.layout.candidates / "000002-01"
    assert json.loads((aside / "candidate.json").read_text())["job"] == 2
    assert checkpoints.verify(aside / "checkpoint-10").verdict is Verdict.VERIFIED
    assert (rig.layout.failed / "harm.jsonl").exists()
    assert "overnight accept 2" in json.loads((rig.layout.failed / "harm.jsonl.report.json").read_text())["to_do"]
    assert "overnight accept 2" in rig.events("job.keep_aside")[0]["message"]
    connection = rig.connect()
    shot = snapshot(rig.layout, connection, now=1e9)
    assert [one["job"] for one in to_json(shot)["judge"]["kept_aside"]] == [2]
    assert "overnight accept 2" in dict(words.facts(shot))["kept aside"]
    assert shot.step == 5
    connection.close()


def test_the_next_job_trains_on_the_model_as_it_was_and_then_nothing_is_accepted(rig: Rig) -> None:
    blocked(rig, files=3)
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
    third = rig.jobs()[2].dataset or ""
    assert len(rig.model()["ledger"]) == 40
    assert rig.model()["ledger"][-1].startswith(third[:12])
    connection = rig.connect()
    sets = {cell.held_out.job for cell in judgements.cells(connection, current=True) if cell.job == 3}
    assert sets == {1, 3}  # what the blocked job taught is no skill of this model
    with pytest.raises(FailedError, match="the model has moved on"):
        control.accept(rig.layout, connection, 2, now=1e9)
    message = control.discard(rig.layout, connection, 2, now=1e9)
    connection.close()
    assert "lies in the trash" in message
    assert not list(rig.layout.candidates.iterdir())
    assert [path.name.split(".")[0] for path in rig.layout.trash.iterdir()] == ["000002-01"]


def test_accepted_it_is_the_model_and_the_next_job_goes_on_from_it(rig: Rig) -> None:
    blocked(rig)
    aside = tree(rig.layout.candidates / "000002-01")
    connection = rig.connect()
    assert "is the model now, at step 10" in control.accept(rig.layout, connection, 2, now=1e9)
    for name, data in aside.items():
        assert name == "candidate.json" or (rig.layout.model / name).read_bytes() == data
    with pytest.raises(UsageError, match="is not kept aside"):
        control.accept(rig.layout, connection, 2, now=1e9)
    rig.submit("more.jsonl", rows=20)
    rig.simulate()
    finish(rig)
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED] * 3
    assert (rig.layout.done / "file1.jsonl").exists()
    assert not list(rig.layout.failed.iterdir())
    assert len(rig.model()["ledger"]) == 60
    assert [skill.held_out.job for skill in judgement.skills(judgements.cells(connection, current=True))] == [1, 2, 3]
    connection.close()


def test_the_first_job_is_kept_aside_and_the_next_one_begins_from_the_base_model(rig: Rig) -> None:
    blocked(rig, harm=1)
    assert [job.state for job in rig.jobs()] == [JobState.FAILED, JobState.SUCCEEDED]
    assert "nothing is learnt" in rig.jobs()[0].reason
    assert attempts.read_spec(rig.layout.attempt("000002-01")).mode == "fresh"
    assert len(rig.model()["ledger"]) == 20


def test_a_blocked_job_is_trained_again_by_retry(rig: Rig) -> None:
    blocked(rig)
    connection = rig.connect()
    queue.move(connection, 2, JobMove.RESUBMIT, expected=JobState.FAILED, reason="again", now=1e9)
    finish(rig)
    assert [path.name for path in rig.layout.candidates.iterdir()] == ["000002-02"]
    assert rig.jobs()[1].state is JobState.FAILED
    rig.simulate()
    queue.move(connection, 2, JobMove.RESUBMIT, expected=JobState.FAILED, reason="again", now=1e9)
    connection.close()
    finish(rig)
    assert rig.jobs()[1].state is JobState.SUCCEEDED
    assert len(rig.model()["ledger"]) == 40


KILLER = """
import os, runpy, signal, sys
from overnight.disk import files

real, seen, die_at = files.rename_durably, [0], int(sys.argv.pop(1))


def rename(source, target):
    seen[0] += "candidates" in str(source) + str(target)
    if seen[0] == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)


files.rename_durably = rename
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""Runs a module of ours and kills the process before its n-th move of a checkpoint."""


def killed(module: str, die_at: int, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(die_at), module, *words],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.parametrize("die_at", [1, 2, 3])
def test_killed_before_each_move_on_the_way_aside_the_next_loop_goes_on(rig: Rig, die_at: int) -> None:
    rig.make(files=2, rows=60, evaluation__holdout=0.2, evaluation__gate="block")  # three checkpoints a job
    rig.simulate(harm=2)
    killed("overnight.daemon", die_at, str(rig.layout.root))
    newest = checkpoints.newest_complete(rig.layout.model)
    assert newest is not None
    assert newest.step == 30
    assert rig.jobs()[1].state is JobState.RUNNING
    finish(rig)
    assert rig.jobs()[1].state is JobState.FAILED
    assert [report.step for report in checkpoints.scan(rig.layout.model, verify_content=True)][:2] == [15, 10]
    assert sorted(path.name for path in (rig.layout.candidates / "000002-01").iterdir()) == [
        "candidate.json", "checkpoint-20", "checkpoint-25", "checkpoint-30",
    ]  # fmt: skip


def test_killed_before_each_move_of_accept_it_is_old_or_new_and_whoever_comes_next_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.make(files=2, rows=60, evaluation__holdout=0.2, evaluation__gate="block")
    rig.simulate(harm=2)
    finish(rig)
    rig.settle()
    for die_at, step in ((1, 15), (2, 30), (3, 30)):
        copy = Rig(rig.layout.root.with_name(f"copy{die_at}"), monkeypatch)
        shutil.copytree(rig.layout.root, copy.layout.root)
        killed("overnight", die_at, "-C", str(copy.layout.root), "accept", "2")
        newest, _ = checkpoints.newest_verified(copy.layout.model)
        assert newest is not None
        assert newest.step == step
        if die_at == 2:
            connection = copy.connect()
            assert "is the model now" in control.accept(copy.layout, connection, 2, now=1e9)
            connection.close()
        finish(copy)
        copy.tick_until(copy.context(), lambda copy=copy: copy.jobs()[1].state is JobState.SUCCEEDED)
        assert len(copy.model()["ledger"]) == 120
        assert not list(copy.layout.candidates.iterdir())
        copy.end()


def test_the_verbs_tell_the_matrix_and_take_or_drop_what_is_kept_aside(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked(rig)
    root = str(rig.layout.root)
    assert cli.run(["-C", root, "judge", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == 1
    assert [(job["verdict"], job["is_current"], len(job["cells"])) for job in answer["jobs"]] == [
        ("passed", True, 1), ("blocked", False, 2),
    ]  # fmt: skip
    assert cli.run(["-C", root, "judge"]) == 0
    assert "blocked" in capsys.readouterr().out
    assert cli.run(["-C", root, "accept", "1"]) == 2
    assert "Job 1 is not kept aside" in capsys.readouterr().err
    assert cli.run(["-C", root, "discard", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job"] == 2
    assert cli.run(["-C", root, "accept", "2"]) == 2
    assert "it was discarded" in capsys.readouterr().err
