"""Whatever somebody does in the folders while the loop works is told once, by name, and harms no run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.daemon import noticing
from overnight.daemon.context import Context
from overnight.disk import checkpoints
from overnight.domain.checkpoint import Verdict
from simulated_rig import Rig
from version_rig import VersionRig

KINDS = ("folder.changed", "checkpoint.changed", "checkpoint.lost", "version.lost", "folder.in_the_way")
LONG = 60
"""Seconds for which a condition is waited for: a loaded machine takes its time."""


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(noticing, "EVERY_S", 0.05)
    monkeypatch.setattr(noticing, "COST_SHARE", 1)
    made = Rig(tmp_path / "workspace", monkeypatch)
    yield made
    made.end()


def told(rig: Rig) -> list[str]:
    return [event["message"] for event in rig.events() if event["kind"] in KINDS]


def looks(rig: Rig, context: Context, count: int = 3) -> None:
    """Tick until the folders have been looked at so often again."""
    seen: list[int] = []

    def is_enough() -> bool:
        sight = id(context.memory.get("sight"))
        if not seen or seen[-1] != sight:
            seen.append(sight)
        return len(seen) > count

    rig.tick_until(context, is_enough, timeout=LONG)


def hurry(rig: Rig) -> None:
    """Kill the slow trainer; the next one is quick."""
    pid = rig.trainer_pid()
    assert pid is not None
    rig.simulate(step_s=0)
    os.kill(pid, signal.SIGKILL)


def undisturbed(rig: Rig, *names: tuple[str, int], **settings: Any) -> dict[str, Any]:
    """Return the model with which the same files end where nobody touches anything."""
    other = Rig(rig.layout.root.with_name("undisturbed")).make(**settings)
    for name, rows in names:
        other.submit(name, rows=rows)
    context = other.context()
    other.tick_until(context, other.is_done, timeout=LONG)
    other.end()
    return other.model()


def test_deleting_editing_and_replacing_in_queue_and_done_is_told_and_harms_nothing(rig: Rig) -> None:
    rig.make()
    context = rig.context()
    rig.drop("first.jsonl", rows=8)
    rig.tick_until(context, lambda: (rig.layout.done / "first.jsonl").exists(), timeout=LONG)
    rig.simulate(step_s=0.5)  # it holds the queue still while the folders are edited
    rig.drop("second.jsonl", rows=400)
    rig.tick_until(context, lambda: (rig.layout.processing / "second.jsonl").exists(), timeout=LONG)
    rig.drop("third.jsonl", rows=8)
    rig.drop("fourth.jsonl", rows=8)
    rig.tick_until(context, lambda: len(list(rig.layout.waiting.iterdir())) == 2, timeout=LONG)
    looks(rig, context)
    assert told(rig) == []
    (rig.layout.done / "first.jsonl").unlink()
    (rig.layout.processing / "second.jsonl").unlink()
    with open(rig.layout.waiting / "third.jsonl", "a") as file:
        file.write('{"text": "added by hand"}\n')
    (rig.layout.waiting / "new").write_text("something else\n")
    (rig.layout.waiting / "new").rename(rig.layout.waiting / "fourth.jsonl")
    looks(rig, context)
    hurry(rig)
    rig.tick_until(context, rig.is_done, timeout=LONG)
    looks(rig, context)
    view = "queue/ is only a view: the job trains from its own copy"
    assert sorted(told(rig)) == [
        "done/first.jsonl was removed by somebody: what was trained is kept in the store; nothing needs that file",
        f"queue/processing/second.jsonl was removed by somebody: {view}",
        f"queue/waiting/fourth.jsonl was replaced by somebody: {view}",
        f"queue/waiting/third.jsonl was edited by somebody: {view}",
    ]
    assert len(rig.model()["ledger"]) == len(set(rig.model()["ledger"])) == 424
    assert rig.model() == undisturbed(rig, *[(job.file, job.examples) for job in rig.jobs()])


def test_an_ordinary_life_raises_no_alarm(rig: Rig) -> None:
    rig.make(checkpoint__every_steps=1, checkpoint__keep=1, queue__max_attempts=1)
    context = rig.context()
    for number in range(2):
        rig.drop(f"file{number}.jsonl", rows=24)
    rig.tick_until(context, lambda: len(rig.jobs()) == 2 and rig.is_done(), timeout=LONG)
    rig.simulate(step_s=0.5)
    rig.drop("paused.jsonl", rows=24)
    rig.tick_until(context, rig.trainer_pid, timeout=LONG)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused", timeout=LONG)
    newest = checkpoints.newest_complete(rig.layout.model)
    assert newest is not None
    (Path(newest.path) / "pinned").touch()  # the documented way to keep one
    looks(rig, context)
    rig.withdraw("paused")
    rig.simulate(step_s=0)
    rig.tick_until(context, rig.is_done, timeout=LONG)
    rig.simulate(fault="data@1:9")
    rig.drop("fails.jsonl", rows=8)
    rig.tick_until(context, lambda: (rig.layout.failed / "fails.jsonl").exists(), timeout=LONG)
    looks(rig, context)
    assert rig.events("checkpoint.removed"), "retention was at work"
    assert told(rig) == []


def test_one_checkpoint_of_several_that_is_removed_or_edited_is_told_by_name(rig: Rig) -> None:
    rig.make(files=1, rows=128, checkpoint__every_steps=2, checkpoint__keep=9)
    rig.simulate(step_s=0.5)
    context = rig.context()
    rig.tick_until(context, lambda: rig.layout.checkpoint(8).is_dir(), timeout=LONG)
    for step in (2, 6):  # else retention may find the damage first, and set them aside with that reason
        (rig.layout.checkpoint(step) / "pinned").touch()
    looks(rig, context)
    shutil.rmtree(rig.layout.checkpoint(4))
    (rig.layout.checkpoint(2) / "weights.bin").write_bytes(b"edited by hand")
    (rig.layout.checkpoint(6) / "more.bin").write_bytes(b"added by hand")
    looks(rig, context, 4)
    hurry(rig)
    rig.tick_until(context, rig.is_done, timeout=LONG)
    advice = "it is read to the last byte before anything starts from it, and set aside if it is damaged"
    assert sorted(told(rig)) == [
        f"current_model/checkpoint-2/weights.bin was edited by somebody: {advice}",
        "current_model/checkpoint-4 was removed by somebody",
        f"current_model/checkpoint-6/more.bin was added by somebody: {advice}",
    ]
    assert rig.model() == undisturbed(rig, ("file0.jsonl", 128))


@pytest.mark.parametrize("whole_folder", [False, True], ids=["the checkpoints", "the whole folder"])
def test_all_checkpoints_deleted_in_the_middle_of_a_job_a_new_one_is_saved_at_once_and_the_bytes_are_equal(
    rig: Rig, whole_folder: bool
) -> None:
    """Checkpoints fall due at the ends of the jobs only: what is saved in between is saved because all were deleted."""
    settings = {"checkpoint__every_steps": 1000}
    rig.make(**settings)
    rig.submit("short.jsonl", rows=8)
    rig.simulate(step_s=0)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=LONG)
    rig.simulate(step_s=0.5)
    rig.submit("long.jsonl", rows=400)
    rig.tick_until(context, lambda: rig.step() >= 5, timeout=LONG)
    looks(rig, context)
    shutil.rmtree(rig.layout.model if whole_folder else rig.layout.checkpoint(2))
    rig.tick_until(context, lambda: checkpoints.newest_complete(rig.layout.model), timeout=LONG)
    saved, _ = checkpoints.newest_verified(rig.layout.model)
    assert saved is not None
    assert saved.verdict is Verdict.VERIFIED
    assert 5 < saved.step < 102
    rig.tick_until(context, lambda: told(rig), timeout=LONG)
    assert len(told(rig)) == 1
    assert told(rig)[0].startswith(
        "CRITICAL: current_model/checkpoint-2 was removed by somebody, and no other checkpoint was there: the trainer"
    )
    hurry(rig)  # the new one is what the job goes on from
    rig.tick_until(context, rig.is_done, timeout=LONG)
    assert rig.attempts()[-1].first_step == saved.step
    assert rig.model() == undisturbed(rig, ("short.jsonl", 8), ("long.jsonl", 400), **settings)


def test_a_checkpoint_that_came_and_went_between_two_looks_is_told(rig: Rig) -> None:
    """Only the history knows of it: the loop looks into the folder now and then."""
    rig.make(checkpoint__every_steps=1000)
    context = rig.context()
    looks(rig, context)
    context.memory["notice_at"] = float("inf")  # no look for as long as this stands
    rig.submit("short.jsonl", rows=8)
    rig.tick_until(context, rig.is_done, timeout=LONG)
    shutil.rmtree(rig.layout.checkpoint(2))
    del context.memory["notice_at"]
    rig.tick_until(context, lambda: told(rig), timeout=LONG)
    looks(rig, context)
    assert [words.partition(":")[2].partition(":")[0] for words in told(rig)] == [
        " current_model/checkpoint-2 was removed by somebody, and no other checkpoint was there"
    ]


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen before", "never seen"])
def test_a_checkpoint_that_made_way_for_a_version_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    monkeypatch.setattr(noticing, "EVERY_S", 0.05)
    rig = VersionRig(tmp_path / "workspace", monkeypatch)
    try:
        rig.make()
        context = rig.context()
        looks(rig, context)
        context.memory["notice_at"] = float("inf")
        rig.submit("short.jsonl", rows=8)
        rig.tick_until(context, rig.is_done, timeout=LONG)
        if is_seen:
            del context.memory["notice_at"]
            looks(rig, context)
        rig.wish("consolidate", description="made between two jobs")
        rig.tick_until(context, lambda: (rig.layout.versions / "v001").is_dir(), timeout=LONG)
        rig.tick_until(context, lambda: rig.events("version.published"), timeout=LONG)
        context.memory.pop("notice_at", None)
        looks(rig, context, 4)
        assert told(rig) == []
    finally:
        rig.end()


def test_a_version_that_somebody_deletes_is_told(rig: Rig) -> None:
    rig.make()
    for name in ("v001", "v002"):
        (rig.layout.versions / name).mkdir()
    context = rig.context()
    looks(rig, context)
    (rig.layout.versions / "v001").rmdir()
    looks(rig, context, 4)
    assert told(rig) == ["models/v001 was removed by somebody"]


def test_what_lies_in_the_place_of_a_file_of_ours_makes_way_and_is_told_once(rig: Rig) -> None:
    rig.make(files=1, rows=8)
    for path in (rig.layout.daemon_state, rig.layout.status_file, rig.layout.paces):
        path.mkdir()
        (path / "mine").write_text("kept")
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=LONG)
    looks(rig, context)
    assert rig.layout.daemon_state.is_file()
    assert rig.layout.status_file.is_file()
    assert len({message for message in told(rig)}) == len(told(rig)) == 3
    kept = [path for path in rig.layout.root.rglob("mine")]
    assert [path.read_text() for path in kept] == ["kept"] * 3
