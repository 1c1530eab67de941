"""The loop's tidying: surplus checkpoints while training, and a trash that forgets in its own time."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import commit_steps, corrupt, names
from overnight import removal
from overnight.daemon import cleanup
from overnight.daemon.context import Moment
from overnight.disk import files, trash
from simulated_rig import Rig

DAY = 86_400.0


def set_aside(rig: Rig, name: str, *, size: int = 100) -> Path:
    folder = rig.layout.trash / name
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * size)
    return folder


def watch(rig: Rig, *, hours: float) -> None:
    """Let a loop that looks once a minute watch the trash, its clock of the boot moving on."""
    context = rig.context()
    context.limits = rig.settings()
    for minute in range(int(hours * 60) + 1):
        cleanup._tidy_trash(context, Moment(unix=0.0, boot=1000.0 + 60.0 * minute))


def test_while_training_the_newest_and_the_parent_stay_and_each_removal_is_told(rig: Rig) -> None:
    rig.make(files=2, checkpoint__every_steps=2, checkpoint__keep=2)
    rig.simulate(step_s=0.03)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 29)
    rig.tick_until(context, lambda: "checkpoint-16" in names(rig.layout) and len(names(rig.layout)) <= 4)
    assert "checkpoint-16" in names(rig.layout), "the parent of the running job"
    rig.tick_until(context, rig.is_done)
    removed = rig.events("checkpoint.removed")
    assert removed
    assert all("older than the 2 newest verified ones" in event["message"] for event in removed)


def test_retention_never_counts_what_is_damaged(rig: Rig) -> None:
    rig.make(checkpoint__keep=2)
    commit_steps(rig.layout, 5, 10, 15, 20, 25)
    corrupt(rig.layout.checkpoint(25))
    corrupt(rig.layout.checkpoint(20))
    context = rig.context()
    rig.tick_until(context, lambda: rig.events("checkpoint.removed"))
    for _ in range(20):
        rig.tick_until(context, lambda: True)
    assert names(rig.layout) == {"checkpoint-25", "checkpoint-20", "checkpoint-15", "checkpoint-10"}


def test_what_is_damaged_and_older_than_a_good_one_is_set_aside_and_told(rig: Rig) -> None:
    rig.make(checkpoint__keep=5)
    commit_steps(rig.layout, 5, 10, 15, 20)
    corrupt(rig.layout.checkpoint(10))
    (rig.layout.checkpoint(5) / "manifest.json").unlink()
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.events("checkpoint.set_aside")) == 2)
    assert names(rig.layout) == {"checkpoint-20", "checkpoint-15"}
    told = [event["message"] for event in rig.events("checkpoint.set_aside")]
    assert "checkpoint-10 is set aside, it is corrupt, and checkpoint-20 is good: optimizer differs" in told[0]
    assert "checkpoint-5 is set aside, it is incomplete, and checkpoint-20 is good: it has no manifest" in told[1]
    kept = {path.name.partition(".")[0]: path for path in rig.layout.trash.iterdir()}
    assert set(kept) == {"checkpoint-10", "checkpoint-5"}
    assert (kept["checkpoint-10"] / "weights").is_file(), "whole, only elsewhere"
    assert rig.events("checkpoint.removed") == []


def test_the_trash_forgets_after_its_time_and_says_so(rig: Rig) -> None:
    rig.make(disk__trash_days=0.25)
    folder = set_aside(rig, "checkpoint-5.00000001")
    watch(rig, hours=5)
    assert folder.exists()
    watch(rig, hours=2)
    assert not folder.exists()
    assert "set aside 6 hours ago; the limit is 6 hours" in rig.events("trash.removed")[0]["message"]


def test_neither_a_clock_that_jumps_nor_a_time_switched_off_makes_anything_old(rig: Rig) -> None:
    rig.make(disk__trash_days=0.25)
    folder = set_aside(rig, "checkpoint-5.00000001")
    os.utime(folder, (1, 1))
    context = rig.context()
    context.limits = rig.settings()
    for boot in (1000.0, 1060.0, 1060.0 + 400 * DAY, 10.0, 70.0):  # suspended for a year, then another boot
        cleanup._tidy_trash(context, Moment(unix=boot * 1e4, boot=boot))
    assert folder.exists()
    assert trash.listing(rig.layout)[0].age_s < 600


def test_the_trash_gives_way_where_space_is_short_and_no_checkpoint_does(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.make(disk__min_free_gb=1.0, checkpoint__keep=5)
    commit_steps(rig.layout, 5, 10)
    old, new = set_aside(rig, "checkpoint-1.00000001"), set_aside(rig, "checkpoint-2.00000002")
    trash.grow_older(rig.layout, 5.0)
    newest = set_aside(rig, "checkpoint-3.00000003")
    monkeypatch.setattr(files, "free_bytes", lambda path: int(1e9) - 150)
    watch(rig, hours=0)
    assert (old.exists(), new.exists(), newest.exists()) == (False, False, True)
    assert names(rig.layout) == {"checkpoint-5", "checkpoint-10"}


def test_a_damaged_count_makes_everything_new(rig: Rig) -> None:
    rig.make()
    set_aside(rig, "checkpoint-5.00000001")
    (rig.layout.state / "trash.json").write_text('{"schema": 1, "watched_s": {"checkpoint-5.00000001": "x"}}')
    assert trash.listing(rig.layout)[0].age_s == 0.0
    shutil.rmtree(rig.layout.trash)
    assert trash.listing(rig.layout) == []


def test_checkpoints_that_are_saved_while_a_plan_is_made_are_not_overlooked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, really = threading.Event(), threading.Event(), removal.plan

    def slow_plan(*args: Any, **named: Any) -> Any:
        found = really(*args, **named)
        asked.set()
        assert go_on.wait(60)
        return found

    rig.make(checkpoint__keep=1)
    commit_steps(rig.layout, 2)
    monkeypatch.setattr(removal, "plan", slow_plan)
    context = rig.context()
    rig.tick_until(context, asked.is_set, timeout=60)
    commit_steps(rig.layout, 4, 6)
    go_on.set()
    rig.tick_until(context, lambda: names(rig.layout) == {"checkpoint-6"}, timeout=60)


def test_a_plan_that_waited_removes_nothing_that_has_come_into_its_place_meanwhile(rig: Rig) -> None:
    """While a version change holds the lock the plan waits; afterwards other checkpoints may have the same names."""
    rig.make(checkpoint__keep=1)
    commit_steps(rig.layout, 2, 4)
    context = rig.context()
    lock = files.Lock(rig.layout.checkpoints_lock)
    assert lock.acquire(holder={})
    rig.tick_until(context, lambda: context.memory.get("plan"), timeout=60)
    for step in (2, 4):
        rig.layout.checkpoint(step).rename(rig.layout.state / f"left-{step}")
    commit_steps(rig.layout, 2)
    lock.release()
    for _ in range(30):
        rig.tick_until(context, lambda: True)
    assert names(rig.layout) == {"checkpoint-2"}
    assert rig.events("checkpoint.removed") == []


def test_what_an_ended_trainer_printed_is_copied_once_and_then_holds_no_secret(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "LOG_TAIL_BYTES", 2000)
    rig.simulate(step_s=0.5)
    rig.make(files=1, rows=400)
    context = rig.context()
    pid = rig.tick_until(context, rig.trainer_pid)
    log = rig.layout.attempt("000001-01") / "trainer.log"
    with open(log, "a") as file:
        file.writelines(f"line {number}\n" for number in range(500))
        file.write("logging in with hf_abcdefgh12345678\nthe last word\n")
    os.kill(pid, signal.SIGKILL)
    rig.tick_until(context, lambda: not log.stat().st_mode & 0o222)
    ticks: list[None] = []
    rig.tick_until(context, lambda: ticks.append(None) or len(ticks) > 5)
    kept = log.read_text()
    assert kept.startswith("[the beginning was cut off]\nline ")
    assert "logging in with [removed]\nthe last word\n" in kept
    assert "hf_" not in kept
    copied = rig.layout.log("trainer").read_text().splitlines()
    assert [line for line in copied if line.startswith("line ")] == [f"line {number}" for number in range(500)]
    assert copied.count("the last word") == 1
    assert not any("hf_" in path.read_text() for path in (rig.layout.crashes / "000001-01").iterdir())
