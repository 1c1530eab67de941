"""The judge in the trainer: each held-out set before and after a job, without a trace, killed or hung in the middle."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig, sums  # noqa: E402

from overnight.disk import attempts  # noqa: E402
from overnight.domain import gate  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome, Report, Spec  # noqa: E402
from overnight.domain.judgement import Score, held_out_id  # noqa: E402
from overnight.trainer.heldout import is_held_out  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SHARE = 0.3
QUICK: dict[str, Any] = {"train__learning_rate": 0.01, "evaluation__holdout": SHARE, "evaluation__max_examples": 12}


def told(spec: Spec, rows: Path, *, own: bool, share: float = SHARE, **changes: Any) -> dict[str, object]:
    """Return a set as the loop names it."""
    return {
        "id": held_out_id(rows.parent.name, share), "dataset": rows.parent.name, "share": share, "examples": 40,
        "supervise": "assistant", "file": rows.name, "is_judged": True, "is_own": own, "job": 1, **changes,
    }  # fmt: skip


class Given(Rig):
    """A workspace with jobs that are judged; datasets lie under their own hash, as in a real one."""

    def store(self, rows: list[Any]) -> Path:
        import hashlib

        data = "".join(json.dumps(row) + "\n" for row in rows)
        return self.rows(rows, hashlib.sha256(data.encode()).hexdigest())

    def judged_spec(self, job: int, rows: Path, earlier: list[Path] | None = None, **changes: Any) -> Spec:
        spec = self.spec(job, rows)
        newest = self.newest()
        if newest is not None and newest.manifest is not None and newest.manifest.job_step == newest.manifest.job_total:
            spec = dataclasses.replace(spec, mode="judge") if newest.manifest.job == job else spec
        sets = [*(told(spec, path, own=False) for path in earlier or []), told(spec, rows, own=True)]
        return dataclasses.replace(spec, held_out=sets, **changes)


def scores(report: Report) -> dict[tuple[str, str], dict[str, Any]]:
    assert report.judged is not None, report.message
    return {(str(line["set"])[:4], str(line["when"])): line.get("score") or {} for line in report.judged}  # type: ignore[misc]


def test_every_set_is_judged_for_the_model_before_and_after_and_leaves_no_trace(tmp_path: Path) -> None:
    plain, judged = Given(tmp_path / "plain", **QUICK), Given(tmp_path / "judged", **QUICK)
    first, second = sums(1, 60), sums(2, 60)
    for rig in (plain, judged):
        a, b = rig.store(first), rig.store(second)
        for job, rows, earlier in ((1, a, []), (2, b, [a])):
            spec = rig.judged_spec(job, rows, earlier)
            report = rig.run(spec if rig is judged else dataclasses.replace(spec, held_out=[]))
            assert report.outcome is Outcome.COMPLETED, report.message
            if rig is judged:
                found = scores(report)
                assert len(found) == 2 * job
                own = str(spec.dataset_id)[:4]
                assert found[own, "after"]["loss"] < found[own, "before"]["loss"]
                assert 0 <= found[own, "before"]["accuracy"] <= found[own, "after"]["accuracy"] <= 1
                assert found[own, "after"]["rows"] > 10
                assert found[own, "after"]["pairs"] > 0
                if job == 1:
                    kept = found[own, "after"]
                else:  # the model before the job is the one after the job before, to the last digit
                    again = found[a.parent.name[:4], "before"]
                    assert {**again, "pairs": 0} == {**kept, "pairs": 0, "pairing": None, "pairing_error": None}
                assert report.eval_loss is not None
    assert plain.state() == judged.state()


def test_killed_in_the_judging_it_is_judged_again_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    calm, rig = Given(tmp_path / "calm", **QUICK), Given(tmp_path / "killed", **QUICK)
    rows = sums(1, 60)
    calmly = scores(calm.run(calm.judged_spec(1, calm.store(rows))))
    path = rig.store(rows)
    after = calmly[path.parent.name[:4], "after"]
    batches = -(-after["rows"] // 4) - (-after["pairs"] // 4)
    trainer = rig.launch(rig.judged_spec(1, path), OVERNIGHT_FAULT=f"judge:{batches + 2}:kill")
    assert trainer.end() == (-9, None)
    before = rig.state()
    found = attempts.read_judged(trainer.folder)
    assert [line.get("when") for line in found] == [None, "after"]  # the second half was begun

    spec = rig.judged_spec(1, path)
    assert spec.mode == "judge"
    report = rig.run(spec)
    assert report.outcome is Outcome.COMPLETED, report.message
    assert report.checkpoint == report.step == report.job_step == report.total
    lines = attempts.read_metrics(rig.layout.attempt(spec.attempt), limit=100)
    assert [sorted(line) for line in lines if "loss" in line] == []
    assert report.eval_loss is not None  # measured again: it was not the evaluation that the first attempt died in
    assert rig.state() == before
    assert scores(report) == calmly
    assert len(attempts.read_judged(rig.layout.attempt(spec.attempt))) == 2  # begun, and what was missing


def test_a_set_that_hangs_or_fails_is_skipped_and_the_job_is_done(tmp_path: Path) -> None:
    rig = Given(tmp_path, **QUICK, watch__eval_stuck_s=4.0, watch__no_progress_s=3.0)
    a, b = rig.store(sums(1, 40)), rig.store(sums(2, 40))
    report = rig.run(rig.judged_spec(1, b, [a]), fault="judge:1:sleep")
    assert report.outcome is Outcome.COMPLETED
    found = scores(report)
    assert found[a.parent.name[:4], "after"] == {}
    assert found[a.parent.name[:4], "before"]
    assert found[b.parent.name[:4], "after"]
    assert [note for note in report.notes if "was not judged (after the job): " in note and "took longer than" in note]
    a.unlink()
    again = rig.run(rig.judged_spec(2, b, [a]))
    assert again.outcome is Outcome.COMPLETED
    assert scores(again)[a.parent.name[:4], "after"] == {}
    assert scores(again)[b.parent.name[:4], "after"]


def test_asked_to_leave_in_the_judging_it_leaves_and_is_judged_later(tmp_path: Path) -> None:
    rig = Given(tmp_path, **QUICK)
    path = rig.store(sums(1, 60))
    report = rig.run(rig.judged_spec(1, path), fault="judge:2:term")
    assert report.outcome is Outcome.PREEMPTED
    assert report.judged is None
    later = rig.run(rig.judged_spec(1, path))
    assert later.outcome is Outcome.COMPLETED
    assert len(scores(later)) == 2


def test_a_row_that_an_earlier_job_held_out_is_never_trained(tmp_path: Path) -> None:
    rows = sums(1, 60)
    held = [row for row in rows if is_held_out(json.dumps(row).encode(), SHARE)]
    kept = [row for row in rows if row not in held]
    rig = Given(tmp_path, **{**QUICK, "evaluation__holdout": 0.0})
    a = rig.store(rows)
    b = rig.store([*held, *sums(7, 20)])
    spec = rig.spec(2, b)
    report = rig.run(dataclasses.replace(spec, held_out=[told(spec, a, own=False)]))
    assert report.tokens is not None
    assert report.tokens["rows_held_out_earlier"] == report.tokens["rows_held_out"] == len(held)
    assert report.tokens["rows_trained"] == 20
    assert [note for note in report.notes if note.startswith(f"{len(held)} rows are not trained")]
    assert kept


def test_a_job_of_nothing_but_held_out_rows_is_refused_in_words(tmp_path: Path) -> None:
    rows = [row for row in sums(1, 60) if is_held_out(json.dumps(row).encode(), SHARE)]
    rig = Given(tmp_path, **{**QUICK, "evaluation__holdout": 0.0})
    a, b = rig.store(sums(1, 60)), rig.store(rows)
    spec = rig.spec(2, b)
    report = rig.run(dataclasses.replace(spec, held_out=[told(spec, a, own=False)]))
    assert (report.outcome, report.kind) == (Outcome.CRASHED, FailureKind.DATA_FORMAT)
    assert "every row is held out" in report.message


def test_a_full_fine_tune_is_judged_before_and_after(tmp_path: Path) -> None:
    rig = Given(tmp_path, **{**QUICK, "train__learning_rate": 0.002}, method="full")
    a, b = rig.store(sums(1, 40)), rig.store(sums(2, 40))
    first = scores(rig.run(rig.judged_spec(1, a)))
    second = scores(rig.run(rig.judged_spec(2, b, [a])))
    assert first[a.parent.name[:4], "after"]["loss"] < first[a.parent.name[:4], "before"]["loss"]
    assert second[a.parent.name[:4], "before"]["loss"] == first[a.parent.name[:4], "after"]["loss"]


def test_answers_in_the_wrong_rows_are_seen_by_their_pairing(tmp_path: Path) -> None:
    source = random.Random(3)
    words = {question: source.choice("0123456789") * 3 for question in "abcdefghij"}
    rows = [
        {"prompt": f"{question} {number}?", "completion": words[question]}
        for number in range(16) for question in words
    ]  # fmt: skip
    answers = [row["completion"] for row in rows]
    source.shuffle(answers)
    wrong = [{**row, "completion": answer} for row, answer in zip(rows, answers, strict=True)]
    options = {**QUICK, "evaluation__max_examples": 60, "train__epochs": 4}
    found = []
    for name, data in (("right", rows), ("wrong", wrong)):
        rig = Given(tmp_path / name, **options)
        report = rig.run(rig.judged_spec(1, path := rig.store(data), None))
        found.append(scores(report)[path.parent.name[:4], "after"])
    right, shuffled = found
    assert gate.is_paired(Score(**right)), right
    assert not gate.is_paired(Score(**shuffled)), shuffled
