"""A lock on a folder holds whatever becomes of the files in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from overnight.disk.folder_lock import FolderLock


def test_only_one_holds_it_and_it_is_free_when_given_back(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").unlink()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_it_is_one_lock_through_every_name_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first, second = FolderLock(tmp_path / "real"), FolderLock(tmp_path / "link")
    assert first.acquire()
    assert not second.acquire()
    first.release()


def test_a_folder_that_was_moved_or_replaced_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    lock = FolderLock(folder)
    assert not lock.is_in_place()
    assert lock.acquire()
    assert lock.is_in_place()
    folder.rename(tmp_path / "elsewhere")
    assert not lock.is_in_place()
    folder.mkdir()
    assert not lock.is_in_place()
    shutil.rmtree(folder)
    lock.release()
