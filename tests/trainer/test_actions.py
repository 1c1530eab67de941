"""What follows a failure, with real torch: smaller batches, rows left out, a fresh process after a lost device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rig import Rig, sums

from overnight.disk import attempts, checkpoints
from overnight.domain.attempt import FailureKind, Outcome, Report
from overnight.domain.micro_batch import of_settings, smaller, with_batch
from overnight.trainer.guard import Guard

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

ROWS = 22


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[int, list[int]]]:
    """Note which rows each step of each attempt trained, as the guard saw them in the forward passes."""
    found: dict[str, dict[int, list[int]]] = {}
    real = Guard.on_pre_optimizer_step

    def note(self: Guard, args: Any, state: Any, control: Any, **words: Any) -> None:
        rows = [row for batch in self._seen for row in batch.rows]
        real(self, args, state, control, **words)
        found.setdefault(self.pulse.attempt, {})[state.global_step + 1] = rows

    monkeypatch.setattr(Guard, "on_pre_optimizer_step", note)
    return found


def losses(rig: Rig, *attempt_ids: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for one in attempt_ids:
        lines = attempts.read_metrics(rig.layout.attempt(one), limit=1000)
        found |= {line["step"]: line["loss"] for line in lines if "loss" in line}
    return found


@pytest.mark.parametrize(("rows", "passes", "epochs"), [(4, 1, 2), (5, 1, 1)])
def test_a_smaller_batch_serves_each_row_once_in_the_same_steps_with_the_same_losses(
    tmp_path: Path, served: dict[str, dict[int, list[int]]], rows: int, passes: int, epochs: int
) -> None:
    changes = {"train__batch_size": rows, "train__gradient_accumulation_steps": passes, "train__epochs": epochs}
    changes["checkpoint__every_steps"] = 2
    plain = Rig(tmp_path / "plain", **changes)
    plain.train(1, plain.rows(sums(1, ROWS), "a"))
    undisturbed, curve = served.pop("000001-01"), losses(plain, "000001-01")

    rig = Rig(tmp_path / "short", **changes)
    data = rig.rows(sums(1, ROWS), "a")
    first = rig.run(rig.spec(1, data), fault="step:4:cuda_oom")
    assert (first.outcome, first.kind, first.checkpoint) == (Outcome.CRASHED, FailureKind.CUDA_OOM, 2)
    assert "OutOfMemoryError" in (first.traceback or "")
    batch = smaller(of_settings(rig.settings))
    assert batch is not None
    rig.settings = with_batch(rig.settings, batch)
    spec = rig.spec(1, data)
    assert spec.mode == "resume"
    last = rig.run(spec, fault=f"rows:{rows}:cuda_oom")  # a device that has no room for the old batch
    assert last.outcome is Outcome.COMPLETED, last.message

    before, after = served["000001-01"], served["000001-02"]
    assert sorted(after) == list(range(3, len(undisturbed) + 1))
    together = {**{step: before[step] for step in (1, 2)}, **after}
    assert {step: sorted(found) for step, found in together.items()} == {
        step: sorted(found) for step, found in undisturbed.items()
    }
    everything = [row for found in together.values() for row in found]
    assert sorted(everything) == sorted(list(range(1, ROWS + 1)) * epochs)
    found = losses(rig, "000001-01", "000001-02")
    assert found.keys() == curve.keys()
    assert all(abs(found[step] - curve[step]) < 2e-3 * abs(curve[step]) for step in curve), (found, curve)
    assert checkpoints.newest_verified(rig.layout.model)[0].step == len(undisturbed)  # type: ignore[union-attr]


def test_a_device_that_has_room_for_no_row_says_so_at_every_size(tmp_path: Path) -> None:
    rig = Rig(tmp_path, train__batch_size=2, train__gradient_accumulation_steps=1)
    data = rig.rows(sums(1, 8), "a")
    for rows in (2, 1):
        report = rig.run(rig.spec(1, data), fault=f"rows:{rows}:cuda_oom")
        assert (report.kind, report.total) == (FailureKind.CUDA_OOM, 4)
        batch = smaller(of_settings(rig.settings))
        rig.settings = with_batch(rig.settings, batch) if batch is not None else rig.settings
    assert batch is None


def test_a_device_lost_in_the_middle_of_a_step_ends_after_a_fresh_start_with_the_same_bytes(tmp_path: Path) -> None:
    plain = Rig(tmp_path / "plain")
    plain.train(1, plain.rows(sums(1, ROWS), "a"))
    rig = Rig(tmp_path / "lost")
    data = rig.rows(sums(1, ROWS), "a")
    first = rig.run(rig.spec(1, data), fault="step:5:device_lost")
    assert (first.kind, first.charged, first.checkpoint) == (FailureKind.CUDA_ERROR, False, 3)
    assert rig.run(rig.spec(1, data)).outcome is Outcome.COMPLETED
    assert rig.state() == plain.state()


def with_bad_row(rig: Rig, data: Path, row: int, left_out: list[int]) -> Report:
    return rig.run(rig.spec(1, data, left_out=left_out), fault=f"row:{row}:nan")


@pytest.mark.parametrize("batch_size", [4, 1])
def test_a_row_that_gives_no_number_is_named_alone_and_the_job_goes_on_without_it(
    tmp_path: Path, served: dict[str, dict[int, list[int]]], batch_size: int
) -> None:
    changes = {
        "train__batch_size": batch_size,
        "checkpoint__every_steps": 2,
        "train__epochs": 2 if batch_size > 1 else 1,
    }
    plain = Rig(tmp_path / "plain", **changes)
    plain.train(1, plain.rows(sums(1, ROWS), "a"))
    undisturbed = served.pop("000001-01")
    bad = undisturbed[4][0]  # after the first checkpoint

    rig = Rig(tmp_path / "bad", **changes)
    data = rig.rows(sums(1, ROWS), "a")
    first = with_bad_row(rig, data, bad, [])
    assert (first.kind, first.bad_rows, first.checkpoint) == (FailureKind.NAN_LOSS, [bad], 2)
    assert f"in rows {bad})" in first.message
    last = with_bad_row(rig, data, bad, [bad])
    assert last.outcome is Outcome.COMPLETED, last.message
    after = served["000001-02"]
    for step, rows in after.items():
        assert rows == [row for row in undisturbed[step] if row != bad], step
    assert last.tokens is not None
    assert (last.tokens["rows_left_out"], last.tokens["rows_trained"]) == (1, ROWS - 1)
    assert last.tokens["rows_total"] == ROWS
    newest = rig.newest()
    assert newest is not None
    assert newest.manifest is not None
    assert newest.manifest.data_cursor["left_out"] == [bad]


def test_rows_left_out_are_left_out_after_a_resume_too_with_the_same_bytes(tmp_path: Path) -> None:
    states = []
    for name, fault in (("plain", None), ("cut", "step:5:raise")):
        rig = Rig(tmp_path / name, lora__dropout=0.1)
        rig.train(1, rig.rows(sums(1, ROWS), "a"), fault=fault, left_out=[3, 17])
        states.append(rig.state())
    assert states[0] == states[1]


def test_a_learning_rate_that_drives_the_model_away_blames_no_row(tmp_path: Path) -> None:
    rig = Rig(tmp_path, train__learning_rate=1.0, train__batch_size=1, method="full", checkpoint__every_steps=1000)
    data = rig.rows(sums(1, 40), "a")
    report = rig.run(rig.spec(1, data), fault="step:9:nan")
    assert (report.outcome, report.kind, report.bad_rows) == (Outcome.CRASHED, FailureKind.NAN_LOSS, [])
    assert report.charged
    assert rig.newest() is None
