"""The five things that are always safe, again and again during a run: add, status, logs, health, asking for the GPU."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import checkpoints
from simulated_rig import Rig, write_rows

ROUNDS = 100 if "OVERNIGHT_EVERY_ARROW" in os.environ else 4
"""So often all five are done; ``make sweep`` does them a hundred times."""

STEPS = 12
STEP_S = 0.3 * ROUNDS
"""So the run lasts longer than the rounds. A step held until they are over would rightly be taken for stuck."""

NVIDIA_SMI = "#!/bin/sh\necho \"$@\" >> '{log}'\necho '0, NVIDIA X, 40, 1000, 80000, 50, 100, [N/A]'\n"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a driver's tool onto the path; return the file in which it notes each time that it is asked."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI.format(log=tmp_path / "asked"))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


def do_all_five(root: Path, more: Path) -> None:
    """Do each once, as a user does."""
    overnight = [sys.executable, "-m", "overnight", "-C", str(root)]
    for words in (["add", str(more), "--priority", "low"], ["status", "--json"], ["logs"], ["doctor", "--json"]):
        done = subprocess.run([*overnight, *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in ((0, 1) if words[0] == "doctor" else (0,)), (words, done.stdout, done.stderr)
        if words[-1] == "--json":
            json.loads(done.stdout)
    subprocess.run(["nvidia-smi"], check=True, capture_output=True)


def have_three_ended(rig: Rig) -> bool:
    return all(job.state.value == "succeeded" for job in rig.jobs()[:3])


@pytest.mark.timeout(1800)
def test_all_five_again_and_again_beside_simulated_trainers_change_no_byte(tmp_path: Path, asked: Path) -> None:
    models = []
    for name in ("undisturbed", "disturbed"):
        rig = Rig(tmp_path / name)
        rig.simulate(step_s=STEP_S if name == "disturbed" else 0.0)
        rig.make(checkpoint__every_steps=2, checkpoint__keep=1000)
        for number, rows in enumerate((12, 16, 4 * STEPS)):
            rig.submit(f"r{number}.jsonl", rows=rows)
        try:
            rig.start_loop()
            num_rounds = 0
            while name == "disturbed" and num_rounds < ROUNDS and not have_three_ended(rig):
                more = tmp_path / f"more{num_rounds}.jsonl"
                more.write_bytes(write_rows(more.name, 1))
                do_all_five(rig.layout.root, more)
                num_rounds += 1
            rig.wait(lambda rig=rig: have_three_ended(rig), timeout=1200)
            assert [job.file for job in rig.jobs()[:3]] == ["r0.jsonl", "r1.jsonl", "r2.jsonl"]
            assert len(rig.jobs()) == 3 + num_rounds
            assert all(job.state.value in ("queued", "running", "succeeded") for job in rig.jobs())
            assert [attempt.kind for attempt in rig.attempts()[:3]] == [None] * 3
        finally:
            rig.end()
        folder = rig.layout.checkpoint(3 + 4 + STEPS)
        assert checkpoints.verify(folder).manifest is not None
        models.append((folder / "state.json").read_bytes())
    assert models[0] == models[1]
    assert len(asked.read_text().splitlines()) >= 2 * num_rounds >= 2, "doctor asked for the GPU too"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_five_again_and_again_beside_a_real_training_change_no_byte(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None], tmp_path: Path, asked: Path
) -> None:
    steps = 576
    workspace.environment["PATH"] = os.environ["PATH"]
    workspace.init_long(**{"checkpoint.keep": "1000"})
    three_files(workspace)
    workspace.up()
    for number in itertools.count():
        more = tmp_path / f"more{number}.jsonl"
        more.write_text(json.dumps({"text": f"one more, {number}"}) + "\n")
        do_all_five(workspace.root, more)
        if workspace.json("status")["queue"]["succeeded"] >= 3:
            break
    assert number >= 1
    workspace.run("down", "--now")
    folder = workspace.root / "current_model" / f"checkpoint-{steps}"
    names = sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors" or p.name == "optimizer.pt")
    assert len(names) > 1
    whole = b"".join(name.encode() + b"\0" + (folder / name).read_bytes() for name in names)
    assert hashlib.sha256(whole).hexdigest() == undisturbed[1]
    assert asked.exists()
