"""Whether somebody still writes a file."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from overnight.disk import writers
from overnight.disk.writers import is_open_for_writing


@pytest.fixture(params=["lease", "open files"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file, and the two ways of finding out."""
    if request.param == "open files":

        def refuse(descriptor: int, command: int, value: int) -> None:
            raise OSError(errno.EACCES, "no leases here")

        monkeypatch.setattr(writers.fcntl, "fcntl", refuse)
    made = tmp_path / "a.jsonl"
    made.write_text("x")
    return made


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND], ids=["w", "rw", "append"])
def test_a_file_that_is_open_for_writing_is_seen_until_it_is_closed(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    assert is_open_for_writing(path)
    os.close(descriptor)
    assert not is_open_for_writing(path)


def test_readers_do_not_count(path: Path) -> None:
    with open(path):
        assert not is_open_for_writing(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match=r".*"):
        is_open_for_writing(tmp_path / "link")


def test_no_lease_is_left_behind(path: Path) -> None:
    assert not is_open_for_writing(path)
    descriptor = os.open(path, os.O_RDONLY)
    assert fcntl.fcntl is not None
    os.close(descriptor)
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(descriptor)
