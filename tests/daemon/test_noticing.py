"""Whatever somebody does in the folders while the loop works is told once, by name, and harms no run."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import commit_steps
from overnight import removal
from overnight.control import cleaning
from overnight.daemon import noticing, recover
from overnight.daemon.context import Context, Moment
from overnight.disk import checkpoints, files, last_sight
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


# between two loops


def ended(rig: Rig, *steps: int, **settings: Any) -> None:
    """Let a loop look at two files and some checkpoints, and end as ``overnight down`` ends it."""
    rig.make(**settings)
    for number in range(2):
        (rig.layout.done / f"file{number}.jsonl").write_text("trained")
    commit_steps(rig.layout, *steps)
    context = rig.context()
    context.record("the daemon has started", kind="daemon.start", at=time.time())
    down(rig, context)


def down(rig: Rig, context: Context) -> None:
    looks(rig, context, 2)
    rig.wish("down")
    rig.tick_until(context, lambda: context.is_over, timeout=LONG)
    assert told(rig) == []


def next_loop(rig: Rig, count: int = 3) -> list[str]:
    """Start another loop, as the daemon does it, and return what is told when it has looked around."""
    context = rig.context()
    recover.recover(context, Moment(unix=time.time(), boot=0.0))
    looks(rig, context, count)
    return told(rig)


def test_what_is_done_while_no_loop_works_is_told_by_the_next_one_and_only_once(rig: Rig) -> None:
    rig.simulate(step_s=0)
    rig.make(checkpoint__every_steps=2)
    context = rig.context()
    for number in range(2):
        rig.drop(f"file{number}.jsonl", rows=16)
    rig.tick_until(context, lambda: len(rig.jobs()) == 2 and rig.is_done(), timeout=LONG)
    rig.tick_until(context, lambda: len(list(rig.layout.done.iterdir())) == 2, timeout=LONG)
    down(rig, context)
    (rig.layout.versions / "v001").mkdir()
    assert next_loop(rig) == []
    (rig.layout.done / "file0.jsonl").unlink()
    (rig.layout.done / "file1.jsonl").write_text("edited by hand")
    shutil.rmtree(rig.layout.checkpoint(2))
    (rig.layout.checkpoint(6) / "weights.bin").write_bytes(b"edited by hand")
    (rig.layout.versions / "v001").rmdir()
    found = sorted(words.partition(":")[0] for words in next_loop(rig))
    assert found == [
        "current_model/checkpoint-2 was removed by somebody",
        "current_model/checkpoint-6/weights.bin was edited by somebody",
        "done/file0.jsonl was removed by somebody",
        "done/file1.jsonl was edited by somebody",
        "models/v001 was removed by somebody",
    ]
    assert len(next_loop(rig)) == len(found)


def test_all_checkpoints_removed_while_no_loop_works_are_told_as_critical(rig: Rig) -> None:
    ended(rig, 8)
    shutil.rmtree(rig.layout.checkpoint(8))
    assert next_loop(rig) == [
        "CRITICAL: current_model/checkpoint-8 was removed by somebody, and no other checkpoint was there: nothing is"
        " started from the base model for that; put one back, from a backup or .overnight/trash"
    ]


def test_what_our_own_commands_do_while_no_loop_works_is_no_alarm(rig: Rig) -> None:
    ended(rig, 2, 4, 6, 8)
    connection = rig.connect()
    agreed = cleaning.plan(rig.layout, connection, keep=1, now=time.time())
    assert agreed.removed
    cleaning.carry_out(rig.layout, connection, agreed, keep=1, now=time.time())
    connection.close()
    checkpoints.set_aside(rig.layout.checkpoint(8), rig.layout.trash)
    assert next_loop(rig) == []


def test_a_loop_killed_while_it_removes_a_checkpoint_raises_no_alarm_in_the_next_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing of the loop runs any more."""

    ended(rig, 2, 4, 6, 8)
    next_loop(rig)
    rig.set(checkpoint__keep=1)
    really = files.remove_tree

    def kill(path: Path, *, inside: Path) -> None:
        really(path, inside=inside)
        if path.name.startswith(removal.REMOVING):
            raise Killed

    context = rig.context()
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_tree", kill)
        with pytest.raises(Killed):
            rig.tick_until(context, lambda: False, timeout=LONG)
    left = len([name for name in os.listdir(rig.layout.model) if name.startswith("checkpoint-")])
    assert left == 3, "one of four is gone"
    assert next_loop(rig) == []


def test_a_job_that_the_gate_keeps_aside_is_no_loss(rig: Rig) -> None:
    rig.make(files=2, rows=20, evaluation__holdout=0.2, evaluation__gate="block")
    rig.simulate(step_s=0, harm=2)
    context = rig.context()
    rig.tick_until(context, lambda: rig.events("job.keep_aside"), timeout=LONG)
    looks(rig, context, 4)
    assert told(rig) == []


@pytest.mark.parametrize("how", ["copied", "another database", "damaged", "gone"])
def test_where_the_last_look_cannot_be_compared_the_first_one_is_silent(rig: Rig, how: str) -> None:
    ended(rig, 2, 4, 6, 8)
    kept = rig.layout.state / "sight.json"
    assert kept.stat().st_size < 10_000
    if how == "copied":
        kept.rename(rig.layout.state / "old")
        kept.write_bytes((rig.layout.state / "old").read_bytes())
    elif how == "another database":
        connection = rig.connect()
        connection.execute("UPDATE events SET at = at + 1")
        connection.close()
    elif how == "damaged":
        kept.write_bytes(kept.read_bytes()[:100])
    else:
        kept.unlink()
    (rig.layout.done / "file0.jsonl").unlink()
    shutil.rmtree(rig.layout.checkpoint(2))
    assert next_loop(rig) == []
    assert last_sight.read(rig.layout) is not None, "the next look is kept again"


def test_a_folder_that_was_moved_to_another_disk_meanwhile_is_no_alarm(rig: Rig) -> None:
    ended(rig, 2, 4, 6, 8)
    for folder in (rig.layout.done, rig.layout.model):
        folder.rename(folder.with_name("old"))
        shutil.copytree(folder.with_name("old"), folder)
        shutil.rmtree(folder.with_name("old"))
    assert next_loop(rig) == []


def test_a_pin_that_is_taken_away_is_no_alarm(rig: Rig) -> None:
    ended(rig, 2, 4, 6, 8)
    (rig.layout.checkpoint(8) / "pinned").touch()
    assert next_loop(rig) == []
    (rig.layout.checkpoint(8) / "pinned").unlink()
    assert next_loop(rig) == []


def test_versions_that_are_made_and_put_in_use_while_no_loop_works_are_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noticing, "EVERY_S", 0.05)
    rig = VersionRig(tmp_path / "workspace", monkeypatch)
    try:
        rig.make()
        rig.submit("short.jsonl", rows=8)
        context = rig.context()
        rig.tick_until(context, rig.is_done, timeout=LONG)
        down(rig, context)
        context.close()
        rig.consolidate()
        assert next_loop(rig) == []
        rig.roll_back("base")
        assert next_loop(rig) == []
    finally:
        rig.end()
