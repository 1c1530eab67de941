"""Whatever the operator does, the final bytes are those of the undisturbed run."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

STEPS = 576  # three long files


def test_pause_and_resume_end_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    workspace.wait_for_step(230)
    started = time.monotonic()
    workspace.run("pause")
    assert time.monotonic() - started < 60
    paused = workspace.json("status")
    assert paused["state"] == "paused"
    assert paused["trainer"] is None
    assert paused["queue"]["queued"] >= 1
    workspace.run("down")  # it survives restarts
    workspace.up()
    assert workspace.json("status")["state"] == "paused"
    workspace.run("resume")
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    workspace.check_end(undisturbed[1])


def test_down_and_up_end_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    workspace.wait_for_step(60)
    workspace.run("down")
    status = workspace.json("status")
    assert status["daemon"] is None
    assert status["trainer"] is None
    assert not list((workspace.root / "done").iterdir())
    workspace.run("stop")  # a wish to stop is met by up, which takes work again
    workspace.until_idle()
    workspace.check_end(undisturbed[1])


def test_the_status_line_of_the_seed_is_never_torn_and_never_goes_back(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    path = workspace.root / "status" / "training_status.json"
    last, reads, deadline = (0, 0), 0, time.monotonic() + 240
    while time.monotonic() < deadline:
        if not path.exists():
            continue
        value = json.loads(path.read_text())
        assert {"step", "total", "loss", "state", "phase", "updated_at", "schema"} <= set(value)
        seen = (value["step"] or 0, value["total"] or 0)
        assert seen[0] >= last[0]
        assert seen[1] >= last[1]
        last, reads = seen, reads + 1
        if seen[0] == STEPS and value["state"] == "idle":
            break
    assert last == (STEPS, STEPS)
    assert reads > 1000
    shown = subprocess.run(["jq", "-c", "{step, total, loss}", str(path)], capture_output=True, text=True, check=False)
    if shown.returncode == 0:
        assert json.loads(shown.stdout)["step"] == STEPS
    workspace.check_end(undisturbed[1])


def test_whatever_is_done_to_the_queue_folders_harms_no_run(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    workspace.wait_for_step(20)
    for number, path in enumerate(sorted((workspace.root / "queue").glob("*/*.jsonl"))):
        if number == 0:
            path.unlink()
        else:
            path.write_text('{"text": "somebody wrote over this"}\n')
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    status = workspace.json("status")
    assert (status["step"], workspace.newest_step()) == (STEPS, STEPS)
    assert workspace.digest() == undisturbed[1]
    for number in range(3):  # what lies in done/ is what was given, and what somebody wrote is not lost
        given = (workspace.root.parent / f"part{number}.jsonl").read_bytes()
        assert (workspace.root / "done" / f"part{number}.jsonl").read_bytes() == given
    told = [
        line
        for line in workspace.run("events", "--json", "--lines", "1000").stdout.splitlines()
        if "folder.changed" in line
    ]
    assert any("was removed by somebody" in line for line in told)
    assert any("edited by somebody" in line for line in told)
    edited = [path for path in (workspace.root / "done").iterdir() if b"somebody wrote" in path.read_bytes()]
    assert len(edited) == 2


def test_all_checkpoints_deleted_in_the_middle_a_new_one_is_saved_at_once_with_the_same_final_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    """None falls due before the end of a file: the one that comes is saved because all were deleted."""
    workspace.init(**{"train.epochs": "12", "checkpoint.every_steps": "1000"})
    three_files(workspace)
    workspace.up()
    workspace.wait_for_step(200)
    shutil.rmtree(workspace.root / "current_model")
    deadline = time.monotonic() + 120
    while not (found := list((workspace.root / "current_model").glob("checkpoint-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert 200 <= min(int(path.name.partition("-")[2]) for path in found) < 384
    assert workspace.json("verify")["resume_from"]["step"] >= 200
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    workspace.check_end(undisturbed[1])
    assert "no other checkpoint was there" in workspace.run("events", "--json", "--lines", "1000").stdout
