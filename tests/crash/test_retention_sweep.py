"""Retention beside a training, killed at every rename, removal and sync in the model's folder: nothing in use is lost.

The loop alone is killed, while a trainer works; the next loop adopts it. strace counts those calls only that touch the
model's folder, so that each of its points is met whatever else the loop writes.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import checkpoints
from overnight.domain.checkpoint import Verdict, step_of
from simulated_rig import Rig, write_rows
from sweep_rig import needs_strace, sampled, strace, sweep

pytestmark = [pytest.mark.crash, needs_strace, pytest.mark.timeout(3000)]

ROWS, STEPS = 32, 8


def prepare(root: Path) -> Rig:
    rig = Rig(root)
    rig.make(checkpoint__every_steps=2, checkpoint__keep=1)
    rig.drop("a.jsonl", rows=ROWS)
    return rig


def is_over(rig: Rig) -> bool:
    return bool(rig.jobs()) and rig.is_done() and all(job.filed for job in rig.jobs())


def is_tidied(rig: Rig) -> bool:
    return os.listdir(rig.layout.model) == [f"checkpoint-{STEPS}"]


def within(rig: Rig) -> list[Path]:
    """Return what retention touches: the model's folder, each checkpoint, and its name while it is removed."""
    folders = [rig.layout.checkpoint(step) for step in range(2, STEPS + 1, 2)]
    return [rig.layout.model, *folders, *(path.with_name(f".removing.{path.name}") for path in folders)]


def removes_no_more(rig: Rig) -> bool:
    """Return whether all was removed that can be while the trainer waits in its last step but one."""
    return os.listdir(rig.layout.model) == [f"checkpoint-{STEPS - 2}"] and rig.trainer_pid() is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rig = prepare(tmp_path_factory.mktemp("undisturbed") / "workspace")
    rig.start_loop()
    rig.wait(lambda: is_over(rig) and is_tidied(rig), timeout=90)
    rig.end()
    return rig.model()


@sampled(rename=(2,), unlinkat=(3,))
def test_retention_killed_at_any_point_beside_a_training_leaves_the_newest_whole_and_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any], call: str, points: tuple[int, ...]
) -> None:
    beside_a_training, release = 0, tmp_path / "release"
    monkeypatch.setenv("OVERNIGHT_FAULT", f"step:{STEPS - 1}:held")
    monkeypatch.setenv("OVERNIGHT_FAULT_RELEASE", str(release))

    def strike(point: int) -> bool:
        release.unlink(missing_ok=True)
        rig = prepare(tmp_path / "workspace")
        try:
            return strike_in(rig, point)
        finally:
            rig.end()
            shutil.rmtree(rig.layout.root)

    def strike_in(rig: Rig, point: int) -> bool:
        nonlocal beside_a_training
        loop = rig.start_loop(wrapper=strace(call, point, within=within(rig)))
        rig.wait(lambda: loop.poll() is not None or removes_no_more(rig), timeout=90)
        if loop.poll() is not None:
            assert rig.trainer_pid() is not None
            beside_a_training += 1
        release.touch()
        rig.wait(lambda: loop.poll() is not None or (is_over(rig) and is_tidied(rig)), timeout=90)
        is_met = loop.poll() is not None
        if is_met:
            assert loop.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), rig.log()
            whole = [path for path in rig.layout.model.iterdir() if step_of(path.name) is not None]
            assert whole
            assert {checkpoints.verify(path).verdict for path in whole} == {Verdict.VERIFIED}
            rig.start_loop()
            rig.wait(lambda: is_over(rig) and is_tidied(rig), timeout=90, what="the end of the job and its tidying")
        model = rig.model()
        assert model == undisturbed
        assert len(model["ledger"]) == len(set(model["ledger"])) == ROWS
        assert len(rig.attempts()) == 1, "the trainer was adopted, never started again"
        assert [path.parent for path in rig.layout.root.rglob("a.jsonl")] == [rig.layout.done]
        assert (rig.layout.done / "a.jsonl").read_bytes() == write_rows("a.jsonl", ROWS)
        return is_met

    met = sweep("retention beside a training", call, points, strike)
    assert beside_a_training >= min(met, 1)
    assert beside_a_training >= met // 2
