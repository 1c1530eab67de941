"""The second place: whole copies or none, killed anywhere, and what was damaged later counts as no copy."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint_rig import commit_steps, corrupt
from overnight import removal
from overnight.disk import backup_memory, backups, files, workspace
from overnight.disk.backup_memory import Memory
from overnight.disk.layout import Layout
from overnight.domain.errors import DiskError, FailedError, OvernightError
from strikes import until_it_survives


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = workspace.new_layout(tmp_path / "w")
    workspace.create(made)
    commit_steps(made, 9, 10, 100)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "second"
    folder.mkdir()
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_place(layout: Layout, place: Path, known: str | None = None) -> str:
    return backups.open_place(layout, place, known=known, model_name="m", now=1.0)


def test_a_copy_is_the_original_byte_for_byte_and_verified_there(layout: Layout, place: Path) -> None:
    copy = backups.store(layout, place, "checkpoint-100")
    assert copy.is_verified
    assert bytes_of(Path(copy.path)) == bytes_of(layout.checkpoint(100))
    assert backups.names_in(place) == ["checkpoint-100"]
    assert not list(place.glob(".copying-*"))


def test_a_damaged_original_is_never_copied_and_the_copy_that_is_there_stays(layout: Layout, place: Path) -> None:
    backups.store(layout, place, "checkpoint-100")
    before = bytes_of(place)
    corrupt(layout.checkpoint(100))
    with pytest.raises(FailedError, match="checkpoint-100 cannot be copied"):
        backups.store(layout, place, "checkpoint-100")
    assert bytes_of(place) == before


def test_an_original_that_is_removed_while_it_is_copied_leaves_no_copy(
    layout: Layout, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_file = backups._copy_file

    def remove_then_copy(source: Path, target: Path) -> None:
        if layout.checkpoint(100).exists():
            shutil.rmtree(layout.checkpoint(100))
        copy_file(source, target)

    monkeypatch.setattr(backups, "_copy_file", remove_then_copy)
    with pytest.raises(FailedError):
        backups.store(layout, place, "checkpoint-100")
    assert backups.names_in(place) == []


def flip_a_bit(folder: Path) -> None:
    corrupt(folder)


def cut(folder: Path) -> None:
    os.truncate(folder / "weights", 3)


def lose_a_file(folder: Path) -> None:
    (folder / "optimizer").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut, lose_a_file])
def test_a_copy_damaged_later_counts_no_more_and_is_replaced(
    layout: Layout, place: Path, damage: Callable[[Path], None]
) -> None:
    memory = Memory(path=str(place))
    copy = backups.store(layout, place, "checkpoint-100")
    assert backup_memory.judge(memory, place, now=5.0)["checkpoint-100"].is_verified
    assert backup_memory.judge(memory, place, now=6.0)["checkpoint-100"].reason.endswith("since it was read back")
    damage(Path(copy.path))
    [found] = backup_memory.judge(memory, place, now=7.0).values()
    assert not found.is_verified
    assert memory.copies == {}
    assert backups.store(layout, place, "checkpoint-100").is_verified
    assert bytes_of(Path(copy.path)) == bytes_of(layout.checkpoint(100))
    assert not list(place.glob(".copying-*"))


def test_a_disk_that_changes_bytes_and_says_nothing_is_found_when_the_copy_is_read_again(
    layout: Layout, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(path=str(place))
    copy = backups.store(layout, place, "checkpoint-100")
    backup_memory.judge(memory, place, now=5.0)
    corrupt(Path(copy.path))
    looks = memory.copies["checkpoint-100"]["looks"]
    monkeypatch.setattr(backups, "looks_of", lambda folder: looks)  # neither size nor times tell
    assert backup_memory.judge(memory, place, now=6.0)["checkpoint-100"].is_verified
    again = backup_memory.judge(memory, place, now=6.0 + backup_memory.REREAD_S)
    assert not again["checkpoint-100"].is_verified


def test_a_place_that_is_not_there_or_was_another_one_is_not_written(layout: Layout, place: Path) -> None:
    with pytest.raises(DiskError, match="is not there"):
        open_place(layout, place / "nowhere")
    token = open_place(layout, place)
    assert open_place(layout, place, token) == token
    (place / backups.MARKER).unlink()  # the disk is not mounted: the folder below its mount point is empty
    with pytest.raises(DiskError, match="not the one that was used"):
        open_place(layout, place, token)
    assert list(place.iterdir()) == []


def test_a_place_inside_the_workspace_or_of_another_model_is_refused(
    layout: Layout, place: Path, tmp_path: Path
) -> None:
    (layout.root / "copies").mkdir()
    with pytest.raises(FailedError, match="inside the workspace"):
        open_place(layout, layout.root / "copies")
    other = workspace.new_layout(tmp_path / "other")
    workspace.create(other)
    commit_steps(other, 1)
    open_place(other, place)
    with pytest.raises(FailedError, match="another model"):
        open_place(layout, place)


def test_no_room_is_told_before_anything_is_written(
    layout: Layout, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(DiskError, match="no room"):
        backups.store(layout, place, "checkpoint-100")
    assert backups.names_in(place) == []


def test_a_copy_is_removed_whole_and_nothing_else_is(layout: Layout, place: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10"):
        backups.store(layout, place, name)
    (place / "checkpoints" / "notes.txt").write_text("mine")
    backups.remove(place, "checkpoint-9")
    assert backups.names_in(place) == ["checkpoint-10"]
    assert (place / "checkpoints" / "notes.txt").exists()


def test_killed_at_each_point_a_copy_is_there_whole_or_not_at_all_and_the_next_one_completes_it(
    layout: Layout, place: Path
) -> None:
    wanted = bytes_of(layout.checkpoint(100))

    def check() -> None:
        for name in backups.names_in(place):
            assert backups.judge(backups.folder_of(place, name), verify_content=True).is_verified, name
        backups.remove_staging(place)
        assert bytes_of(Path(backups.store(layout, place, "checkpoint-100").path)) == wanted

    def prepare() -> None:
        shutil.rmtree(place)
        place.mkdir()

    assert until_it_survives(lambda: backups.store(layout, place, "checkpoint-100"), check, prepare) > 5


def test_killed_at_each_point_while_a_damaged_copy_is_replaced_no_damaged_one_is_taken_for_whole(
    layout: Layout, place: Path
) -> None:
    def prepare() -> None:
        backups.store(layout, place, "checkpoint-100")
        corrupt(place / "checkpoints" / "checkpoint-100")

    def check() -> None:
        found = backups.listing(place, verify_content=True)
        assert all(copy.is_verified or "differs" in copy.reason for copy in found)
        backups.remove_staging(place)
        assert backups.store(layout, place, "checkpoint-100").is_verified
        assert [path.name for path in place.iterdir()] == ["checkpoints"]

    assert until_it_survives(lambda: backups.store(layout, place, "checkpoint-100"), check, prepare) > 5


def test_killed_at_each_point_of_a_removal_the_copy_is_whole_or_gone(layout: Layout, place: Path) -> None:
    def prepare() -> None:
        backups.store(layout, place, "checkpoint-9")

    def check() -> None:
        assert all(copy.is_verified for copy in backups.listing(place, verify_content=True))
        backups.remove_staging(place)

    assert until_it_survives(lambda: backups.remove(place, "checkpoint-9"), check, prepare) > 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_refuses_is_told_and_leaves_the_copies_that_are_there(
    layout: Layout, place: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.store(layout, place, "checkpoint-9")
    before = bytes_of(place)

    def refuse(path: Path, **_: object) -> object:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(files, "open_new", refuse)
    with pytest.raises(OvernightError):
        backups.store(layout, place, "checkpoint-100")
    monkeypatch.undo()
    assert bytes_of(place) == before


def test_what_is_copied_right_now_is_held_against_retention(layout: Layout, place: Path) -> None:
    lock = files.Lock(layout.backup_lock)
    assert lock.acquire(holder={"pid": os.getpid()})
    backup_memory.write(layout, Memory(path=str(place), copying="checkpoint-9"))
    held = {item.step: item for item in removal.plan(layout, keep=1, held={})}
    assert (held[9].is_kept, held[10].is_kept) == (True, False)
    assert "is being copied" in held[9].reason
    lock.release()  # its holder has died: nothing is copied any more
    assert [item.step for item in removal.plan(layout, keep=1, held={}) if item.is_kept] == [100]
