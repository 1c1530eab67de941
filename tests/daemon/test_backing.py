"""Copies in the second place, made beside the loop by a real process; whatever that place does, training goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.daemon import backing, copying
from overnight.database import events
from overnight.disk import backup_memory, backups, checkpoints, files, versions
from overnight.domain.errors import FailedError
from overnight.launchers import guards
from simulated_rig import Rig
from version_rig import BLANK


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backing, "LOOK_S", 0.05)
    monkeypatch.setattr(backing, "RETRY_S", 0.2)
    folder = tmp_path / "second"
    folder.mkdir()
    return folder


def copies(place: Path) -> list[str]:
    """Return the names of the copies, each read to the last byte."""
    found = backups.listing(place, verify_content=True)
    assert all(copy.is_verified for copy in found), [copy.reason for copy in found]
    return [copy.name for copy in found]


def is_at_rest(rig: Rig) -> bool:
    """Whether all is trained, and no process makes copies."""
    return rig.is_done() and files.lock_holder(rig.layout.backup_lock) is None


def chain(folder: Path) -> str:
    value: str = json.loads((folder / "state.json").read_text())["chain"]
    return value


def test_each_nth_checkpoint_is_copied_while_training_goes_on_as_without(
    rig: Rig, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Rig(tmp_path / "alone", monkeypatch).make(files=2, rows=64)
    context = alone.context()
    try:
        alone.tick_until(context, alone.is_done, timeout=60)
        expected = alone.model()
    finally:
        alone.end()

    rig.make(files=2, rows=64, backup__path=str(place), backup__every_checkpoints=1)
    context = rig.context()
    rig.tick_until(context, lambda: is_at_rest(rig) and copies(place) == ["checkpoint-32"], timeout=60)
    assert rig.model() == expected
    assert chain(place / "checkpoints" / "checkpoint-32") == expected["chain"]
    assert (place / "config.json").read_bytes() == rig.layout.config.read_bytes()
    made, removed = rig.events("backup.made"), rig.events("backup.removed")
    assert made[-1]["data"]["name"] == "checkpoint-32"
    assert len(removed) == len(made) - 1, "of one day the newest stays"


def test_fewer_checkpoints_than_asked_for_are_waited_for(rig: Rig, place: Path) -> None:
    rig.make(files=1, rows=16, backup__path=str(place), backup__every_checkpoints=1000)
    context = rig.context()
    rig.tick_until(context, lambda: is_at_rest(rig) and backups.names_in(place), timeout=60)
    rig.submit("more.jsonl", rows=64)
    rig.tick_until(context, lambda: is_at_rest(rig), timeout=60)
    assert len(rig.events("backup.made")) == 1, "the first one at once, the others when their number is reached"


def test_a_second_place_that_is_not_there_is_told_once_and_used_when_it_comes(rig: Rig, place: Path) -> None:
    place.rmdir()
    rig.make(files=1, rows=32, backup__path=str(place))
    context = rig.context()
    rig.tick_until(context, lambda: rig.is_done() and rig.events("backup.waiting"), timeout=60)
    ended = [len(rig.events("backup.waiting"))]
    rig.tick_until(context, lambda: context.memory.get("backup_began", 0.0) > ended[0], timeout=60)
    assert len(rig.events("backup.waiting")) == 1
    assert "is not there" in rig.events("backup.waiting")[0]["message"]
    place.mkdir()
    rig.tick_until(context, lambda: backups.names_in(place) == ["checkpoint-8"], timeout=60)


def test_a_disk_that_was_unmounted_is_not_written_below_its_mount_point(rig: Rig, place: Path) -> None:
    rig.make(files=1, rows=16, backup__path=str(place), backup__every_checkpoints=1)
    context = rig.context()
    rig.tick_until(context, lambda: is_at_rest(rig) and backups.names_in(place), timeout=60)
    elsewhere = place.with_name("elsewhere")
    place.rename(elsewhere)
    place.mkdir()
    rig.submit("more.jsonl", rows=64)
    rig.tick_until(context, lambda: rig.is_done() and rig.events("backup.waiting"), timeout=60)
    assert list(place.iterdir()) == []
    place.rmdir()
    elsewhere.rename(place)
    rig.tick_until(context, lambda: is_at_rest(rig) and copies(place) == ["checkpoint-20"], timeout=60)


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """Give a second place on a disk of its own, of 48 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a disk needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_second_place_is_told_and_used_again_when_there_is_room(rig: Rig, small_disk: Path) -> None:
    with open(small_disk / "theirs", "wb") as file:
        file.write(b"x" * (40 << 20))
    rig.make(files=1, rows=32, backup__path=str(small_disk))
    context = rig.context()
    rig.tick_until(context, lambda: rig.is_done() and rig.events("backup.waiting"), timeout=60)
    assert "no room" in rig.events("backup.waiting")[0]["message"]
    (small_disk / "theirs").unlink()
    rig.tick_until(context, lambda: copies(small_disk) == ["checkpoint-8"], timeout=60)


def test_a_second_place_that_becomes_read_only_is_told_and_used_again(rig: Rig, small_disk: Path) -> None:
    rig.make(files=1, rows=16, backup__path=str(small_disk), backup__every_checkpoints=1)
    context = rig.context()
    rig.tick_until(context, lambda: is_at_rest(rig) and backups.names_in(small_disk), timeout=60)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    rig.submit("more.jsonl", rows=32)
    rig.tick_until(context, lambda: rig.is_done() and rig.events("backup.waiting"), timeout=60)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    rig.tick_until(context, lambda: is_at_rest(rig) and copies(small_disk) == ["checkpoint-12"], timeout=60)


def test_a_copy_damaged_later_is_told_counts_no_more_and_is_made_again(rig: Rig, place: Path) -> None:
    rig.make(files=1, rows=16, backup__path=str(place), backup__every_checkpoints=1)
    context = rig.context()

    def is_over() -> bool:
        """Whether the loop has seen that the copying ended: only then does it say when it looks again."""
        return is_at_rest(rig) and "backup" not in context.helpers and bool(backups.names_in(place))

    rig.tick_until(context, is_over, timeout=60)
    weights = place / "checkpoints" / "checkpoint-4" / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[7] ^= 1
    weights.write_bytes(data)
    context.memory["backup_again"] = 0.0  # as after six hours
    rig.tick_until(context, lambda: is_at_rest(rig) and len(rig.events("backup.made")) == 2, timeout=60)
    assert "weights.bin differs" in rig.events("backup.damaged")[0]["message"]
    assert copies(place) == ["checkpoint-4"]


def test_a_second_place_that_hangs_holds_nobody_up_and_is_told(
    rig: Rig, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(places: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])

    monkeypatch.setattr(guards, "start_backup", hang)
    monkeypatch.setattr(backing, "SLOW_S", 0.0)
    rig.make(files=2, rows=32, backup__path=str(place))
    context = rig.context()
    rig.tick_until(context, lambda: rig.is_done() and rig.events("backup.slow"), timeout=60)
    child = context.helpers["backup"]
    assert child.poll() is None
    assert len(rig.events("backup.slow")) == 1
    child.kill()


def test_a_backup_that_is_killed_again_and_again_gets_there(rig: Rig, place: Path) -> None:
    rig.make(files=1, rows=64, backup__path=str(place), backup__every_checkpoints=1)
    context = rig.context()
    killed = 0

    def kill_it() -> bool:
        nonlocal killed
        child = context.helpers.get("backup")
        if child is not None and killed < 3 and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        return is_at_rest(rig) and killed == 3 and backups.names_in(place) == ["checkpoint-16"]

    rig.tick_until(context, kill_it, timeout=90)
    assert copies(place) == ["checkpoint-16"]
    assert not list(place.glob(".copying-*"))
    assert events.newest_of(context.connection, "backup.made") is not None


def test_where_the_checkpoints_made_way_for_a_version_nothing_is_due_until_one_is_saved_again(
    rig: Rig, place: Path
) -> None:
    rig.make(files=1, rows=64, backup__path=str(place), backup__every_checkpoints=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    rig.tick_until(context, lambda: is_at_rest(rig) and copies(place), timeout=60)
    for folder in rig.layout.model.glob("checkpoint-*"):
        checkpoints.set_aside(folder, rig.layout.trash)
    events.record(context.connection, now=1.0, kind="checkpoint.committed", message="one more", step=99, attempt="x")
    starts: list[int] = []
    start = guards.start_backup
    with pytest.MonkeyPatch.context() as counted:
        counted.setattr(guards, "start_backup", lambda layout: starts.append(1) or start(layout))
        rig.tick_until(context, lambda: starts and "backup" not in context.helpers, timeout=60)
        until = time.monotonic() + 20 * backing.LOOK_S
        rig.tick_until(context, lambda: time.monotonic() > until, timeout=60)
    assert len(starts) == 1


def test_a_damaged_version_is_told_and_not_copied_again_and_again(
    rig: Rig, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.make(files=1, rows=64, backup__path=str(place))
    staging = versions.make_staging(rig.layout, "v001")
    (staging / "model.safetensors").write_bytes(b"weights")
    (staging / "config.json").write_text("{}")
    versions.seal(staging, BLANK)
    staging.rename(rig.layout.versions / "v001")
    weights = rig.layout.versions / "v001" / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"damaged")
    connection = rig.connect()
    asked: list[str] = []
    store = backups.store
    monkeypatch.setattr(backups, "store", lambda layout, where, name: asked.append(name) or store(layout, where, name))

    def run(now: float) -> None:
        with pytest.raises(FailedError, match="v001 cannot be copied"):
            copying.Run(rig.layout, connection, rig.settings().backup, now=now).do(model_name="m")

    run(1000.0)
    run(1060.0)
    assert asked == ["v001"]
    run(1000.0 + backup_memory.RETRY_S)
    assert asked == ["v001"] * 2
    weights.write_bytes(b"weights")
    copying.Run(rig.layout, connection, rig.settings().backup, now=1000.0 + backup_memory.RETRY_S + 1).do(
        model_name="m"
    )
    connection.close()
    assert copies(place) == ["v001"]
