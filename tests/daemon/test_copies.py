"""Copies made while training saves, and workspaces in places with odd names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overnight.disk import checkpoints
from overnight.domain.checkpoint import Verdict, step_of
from simulated_rig import Rig


def test_whatever_is_copied_under_a_final_name_while_training_saves_is_whole(rig: Rig, tmp_path: Path) -> None:
    rig.make(files=2, rows=64, checkpoint__every_steps=1, checkpoint__keep=100)
    rig.simulate(step_s=0.03)
    rig.start_loop()
    rig.wait(lambda: list(rig.layout.model.glob("checkpoint-*")))
    rounds = 0
    while not rig.is_done():
        copy = tmp_path / f"copy{rounds}"
        # hidden ones come and go while they are copied: what has a final name must be whole all the same
        subprocess.run(["cp", "-a", str(rig.layout.model), str(copy)], capture_output=True, check=False)
        named = [path for path in copy.iterdir() if step_of(path.name) is not None]
        for path in named:
            report = checkpoints.verify(path)
            assert report.verdict is Verdict.VERIFIED, report.reason
        shutil.rmtree(copy)
        rounds += 1
    assert rounds >= 3


@pytest.mark.parametrize("name", ['ünï 模型 quote\'s "and" $(touch x) `x`', "-C"])
def test_a_workspace_with_an_odd_name_works_from_anywhere(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    environment = {**os.environ, "OVERNIGHT_SIMULATED": "step_s=0", "OVERNIGHT_WORKSPACE": name}
    command = [sys.executable, "-m", "overnight"]
    made = subprocess.run(
        [*command, "init", "--base-model", "builtin:tiny", "--model-name", "m", "--set", "disk.min_free_gb=0",
         "--set", "queue.settle_s=0.05", "--", name],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"text": "row {number}"}}\n' for number in range(8)))
    done = subprocess.run(
        [*command, "add", "data.jsonl"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    environment["OVERNIGHT_WORKSPACE"] = str(root)
    done = subprocess.run(
        [*command, "up", "--until-idle"], cwd="/", env=environment, capture_output=True, text=True, timeout=90,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (root / "current_model").iterdir()) == ["checkpoint-1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data.jsonl", name])
