"""The promise: whatever is done to a run, its final bytes are those of the undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

STEPS = 576  # three files of 64 rows, batch 4, 12 epochs
LONG = {"train.epochs": "12", "checkpoint.every_steps": "25"}


def check_end(workspace: Any, expected: str) -> None:
    status = workspace.json("status")
    assert status["step"] == STEPS
    assert status["queue"]["succeeded"] == 3
    assert workspace.newest_step() == STEPS
    assert workspace.digest() == expected
    assert sorted(os.listdir(workspace.root / "done")) == ["part0.jsonl", "part1.jsonl", "part2.jsonl"]
    assert os.listdir(workspace.root / "inbox") == []


def test_three_files_of_64_rows_in_batches_of_4_give_48_steps_and_the_same_bytes_twice(
    make_workspace: Callable[[str], Any], three_files: Callable[[Any], None]
) -> None:
    digests = []
    for number in range(2):
        workspace = make_workspace(str(number)).init()
        three_files(workspace)
        workspace.until_idle()
        status = workspace.json("status")
        assert (status["step"], status["total"], workspace.newest_step()) == (48, 48, 48)
        digests.append(workspace.digest())
    assert digests[0] == digests[1]


def test_the_undisturbed_run_learns_and_another_seed_gives_other_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    first, expected = undisturbed
    check_end(first, expected)
    losses = [
        json.loads(line)["loss"]
        for folder in sorted((first.root / ".overnight" / "attempts").iterdir())
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert sum(losses[-16:]) / 16 < 0.8 * sum(losses[:16]) / 16
    workspace.init(**LONG, seed="43")
    three_files(workspace)
    workspace.until_idle()
    assert workspace.newest_step() == STEPS
    assert workspace.digest() != expected


@pytest.mark.crash
@pytest.mark.parametrize("step", [30, 250])
def test_a_killed_trainer_ends_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None], step: int
) -> None:
    workspace.init(**LONG)
    three_files(workspace)
    workspace.up()
    pid = workspace.wait_for_step(step)["trainer"]["pid"]
    os.kill(pid, signal.SIGKILL)
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    check_end(workspace, undisturbed[1])
    events = [event["kind"] for event in map(json.loads, workspace.run("events", "--json").stdout.splitlines())]
    assert "attempt.ended" in events


@pytest.mark.crash
def test_everything_killed_at_once_goes_on_with_up(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init(**LONG)
    three_files(workspace)
    workspace.up()
    status = workspace.wait_for_step(220)
    for part in ("watchdog", "daemon", "trainer"):
        if status[part]:
            os.kill(status[part]["pid"], signal.SIGKILL)
    dead = workspace.wait(lambda status: status["state"] == "dead", timeout=30)
    assert dead["step"] >= 200
    assert workspace.run("status", check=False).returncode == 69
    workspace.until_idle()
    check_end(workspace, undisturbed[1])


@pytest.mark.crash
def test_a_killed_loop_costs_no_step(workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]) -> None:
    workspace.init(**LONG)
    three_files(workspace)
    workspace.up()
    before = workspace.wait_for_step(20)
    os.kill(before["daemon"]["pid"], signal.SIGKILL)
    workspace.wait(lambda status: status["daemon"] and status["daemon"]["pid"] != before["daemon"]["pid"])
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    check_end(workspace, undisturbed[1])


def test_pause_and_resume_end_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init(**LONG)
    three_files(workspace)
    workspace.up()
    workspace.wait_for_step(230)
    started = time.monotonic()
    workspace.run("pause")
    assert time.monotonic() - started < 30
    paused = workspace.json("status")
    assert paused["state"] == "paused"
    assert paused["trainer"] is None
    assert paused["queue"]["queued"] >= 1
    workspace.run("down")  # it survives restarts
    workspace.up()
    assert workspace.json("status")["state"] == "paused"
    workspace.run("resume")
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    check_end(workspace, undisturbed[1])


def test_down_and_up_end_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init(**LONG)
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
    check_end(workspace, undisturbed[1])


def test_the_status_line_of_the_seed_is_never_torn_and_never_goes_back(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init(**LONG)
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
    check_end(workspace, undisturbed[1])


def test_whatever_is_done_to_the_queue_folders_harms_no_run(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init(**LONG)
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
    edited = [path for path in (workspace.root / "done").iterdir() if b"somebody wrote" in path.read_bytes()]
    assert len(edited) == 2
