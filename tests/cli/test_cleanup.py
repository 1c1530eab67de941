"""Cleanup as the operator meets it: never what is needed, never while somebody trains, never a question to nobody."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import commit_steps, corrupt, names
from overnight.disk import checkpoints, files
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Verdict
from overnight.domain.job import JobState
from simulated_rig import Rig

Run = Callable[..., Any]


def steps(items: list[dict[str, Any]]) -> list[int]:
    return [item["step"] for item in items]


def test_the_newest_verified_ones_stay_by_number_and_five_by_default(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 900, 1000, 3200, 5, 10, 15, 20)
    said = inside("cleanup", "--yes", "--json")
    assert said.code == 0
    assert steps(said.json["kept"]) == [3200, 1000, 900, 20, 15]
    assert steps(said.json["removed"]) == [10, 5]
    assert said.json["freed_bytes"] == sum(item["bytes"] for item in said.json["removed"]) > 0
    assert names(layout) == {"checkpoint-3200", "checkpoint-1000", "checkpoint-900", "checkpoint-20", "checkpoint-15"}
    assert inside("events", "--json").out.count('"checkpoint.removed"') == 2


def test_where_the_newest_are_damaged_the_last_good_one_stays(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10, 15, 20, 25)
    for step in (15, 20, 25):
        corrupt(layout.checkpoint(step))
    said = inside("cleanup", "--keep", "1", "--yes", "--json")
    assert steps(said.json["kept"]) == [25, 20, 15, 10]
    assert [item["state"] for item in said.json["kept"]] == ["corrupt"] * 3 + ["verified"]
    assert steps(said.json["removed"]) == [5]
    assert checkpoints.verify(layout.checkpoint(10)).verdict is Verdict.VERIFIED


def test_a_dry_run_is_the_plan_that_is_carried_out_and_changes_nothing(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10, 15, 20)
    before = names(layout)
    dry = inside("cleanup", "--keep", "2", "--dry-run", "--json").json
    assert names(layout) == before
    real = inside("cleanup", "--keep", "2", "--yes", "--json").json
    assert {**dry, "dry_run": False} == real
    assert all(item["reason"] for item in [*real["kept"], *real["removed"]])
    assert "0 checkpoints" in inside("cleanup", "--keep", "2").out


def test_cleanup_sets_aside_what_is_damaged_and_older_than_a_good_one_as_its_dry_run_says(
    inside: Run, layout: Layout
) -> None:
    commit_steps(layout, 5, 10, 15)
    corrupt(layout.checkpoint(5))
    planned = inside("cleanup", "--dry-run", "--json").json
    assert names(layout) == {"checkpoint-15", "checkpoint-10", "checkpoint-5"}
    real = inside("cleanup", "--yes", "--json").json
    assert (steps(planned["kept"]), steps(planned["set_aside"]), planned["removed"]) == ([15, 10], [5], [])
    assert real == {**planned, "dry_run": False}
    assert names(layout) == {"checkpoint-15", "checkpoint-10"}
    assert [path.name.partition(".")[0] for path in layout.trash.iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize("keep", ["0", "-1", "x", "1.5", ""])
def test_a_number_below_one_and_no_number_are_wrong_usage_and_remove_nothing(
    inside: Run, layout: Layout, keep: str
) -> None:
    commit_steps(layout, 5, 10)
    assert inside("cleanup", "--keep", keep, "--yes").code == 2
    assert names(layout) == {"checkpoint-5", "checkpoint-10"}


def test_what_is_pinned_or_a_parent_stays_and_says_why(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10, 15, 20, 25)
    (layout.checkpoint(5) / "pinned").touch()
    from overnight.database import queue
    from overnight.database.connection import connect
    from overnight.domain.job import Priority

    connection = connect(layout.database)
    job = queue.submit(
        connection, claim="c", file="a.jsonl", sha256="s", dataset="d", priority=Priority.NORMAL, examples=1,
        accounting={}, rejection=None, now=1.0,
    )  # fmt: skip
    queue.dispatch(connection, job.id, settings={}, start_step=10, first_step=15, reason="r", now=1.0)
    connection.close()
    said = inside("cleanup", "--keep", "1", "--yes", "--json").json  # its daemon is gone, and so is its trainer
    reasons = {item["step"]: item["reason"] for item in said["kept"]}
    assert set(reasons) == {25, 15, 10, 5}
    assert "pinned" in reasons[5]
    assert "parent of job 1" in reasons[10]
    assert "in use" in reasons[15]
    assert steps(said["removed"]) == [20]


def test_without_a_terminal_nobody_is_asked_and_nothing_is_done(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10)
    for words in (["cleanup", "--keep", "1"], ["cleanup", "--keep", "1", "--json"]):
        said = inside(*words)
        assert said.code == 2
        assert "Nothing was removed: nobody can be asked here" in said.err
    assert names(layout) == {"checkpoint-5", "checkpoint-10"}


def test_what_an_interrupted_removal_left_is_completed(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10)
    layout.checkpoint(5).rename(layout.model / ".removing.checkpoint-5")
    said = inside("cleanup", "--yes", "--json").json
    assert [(item["step"], item["reason"]) for item in said["removed"]] == [(5, "its removal was interrupted")]
    assert {path.name for path in layout.model.iterdir()} == {"checkpoint-10"}


def test_a_link_in_the_models_folder_is_never_followed(inside: Run, layout: Layout, tmp_path: Path) -> None:
    commit_steps(layout, 10, 15)
    shutil.copytree(layout.checkpoint(10), tmp_path / "elsewhere" / "checkpoint-5")
    (layout.model / "checkpoint-5").symlink_to(tmp_path / "elsewhere" / "checkpoint-5")
    inside("cleanup", "--keep", "1", "--yes")
    assert (tmp_path / "elsewhere" / "checkpoint-5" / "weights").exists()
    assert names(layout) == {"checkpoint-15", "checkpoint-5"}  # foreign: left alone


@pytest.mark.parametrize("state", ["working", "stopped by a signal", "its status gone", "its status old"])
def test_while_training_is_active_it_is_refused_and_says_who(run: Run, rig: Rig, state: str) -> None:
    rig.make(files=1, checkpoint__every_steps=2, checkpoint__keep=50)
    rig.simulate(step_s=0.2)
    rig.start_loop()
    rig.wait(lambda: len(list(rig.layout.model.glob("checkpoint-*"))) >= 2 and rig.trainer_pid())
    pid = rig.trainer_pid()
    assert pid is not None
    if state == "stopped by a signal":
        os.kill(pid, signal.SIGSTOP)
    for path in (rig.layout.status_file, rig.layout.daemon_state, *rig.layout.attempts.glob("*/heartbeat.json")):
        if state == "its status gone":
            path.unlink(missing_ok=True)
        elif state == "its status old" and path.exists():
            os.utime(path, (1, 1))
    for words in (["--yes"], ["--dry-run"], []):
        said = run("-C", str(rig.layout.root), "cleanup", "--keep", "1", *words, "--json")
        assert said.code == 75
        assert said.json["error"]["message"] == "ABORT: training is active"
        assert f"pid {pid}" in said.json["error"]["found"]
    if state == "stopped by a signal":
        os.kill(pid, signal.SIGCONT)
    rig.wait(rig.is_done)
    assert run("-C", str(rig.layout.root), "cleanup", "--keep", "1", "--yes").code == 0
    assert names(rig.layout) == {"checkpoint-16"}


def test_an_attempt_that_is_just_being_opened_is_active_too(run: Run, rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    from overnight.database import queue

    queue.dispatch(
        context.connection, 1, settings={}, start_step=0, first_step=0, reason="begins from the base model", now=1.0
    )
    daemon = files.Lock(rig.layout.daemon_lock)
    assert daemon.acquire(holder={"pid": 1})
    said = run("-C", str(rig.layout.root), "cleanup", "--yes")
    daemon.release()
    assert said.code == 75
    assert "ABORT: training is active" in said.err
    assert "attempt 000001-01 of job 1 is starting" in said.err


def test_no_attempt_starts_while_checkpoints_are_removed(rig: Rig) -> None:
    rig.make(files=1)
    lock = files.Lock(rig.layout.checkpoints_lock)
    assert lock.acquire(holder={"pid": 4711})
    context = rig.context()
    rig.tick_until(context, lambda: "4711" in context.standing.reason)
    assert rig.attempts() == []
    lock.release()
    rig.tick_until(context, rig.is_done)


def test_cleaning_in_a_loop_beside_the_daemon_harms_no_run(run: Run, rig: Rig, tmp_path: Path) -> None:
    other = Rig(tmp_path / "undisturbed").make(files=4, rows=16, checkpoint__every_steps=1, checkpoint__keep=50)
    context = other.context()
    other.tick_until(context, other.is_done)
    expected = other.model()
    other.end()

    rig.make(files=4, rows=16, checkpoint__every_steps=1, checkpoint__keep=50)
    rig.start_loop()
    codes = []
    while not rig.is_done():
        codes.append(run("-C", str(rig.layout.root), "cleanup", "--keep", "1", "--yes").code)
        assert len(codes) < 2000
    assert 0 in codes
    assert set(codes) <= {0, 75}
    assert rig.model() == expected
    assert all(job.state is JobState.SUCCEEDED and job.charged == 0 for job in rig.jobs())
    assert all(attempt.kind is None for attempt in rig.attempts())
