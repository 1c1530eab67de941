"""The raw file calls, met with real disks, real locks and real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.disk import files
from overnight.domain.errors import BusyError, DiskError

WRITE = (
    "import sys; from pathlib import Path; from overnight.disk import files;"
    "files.write_durably(Path(sys.argv[1]), b'new' * 1000)"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB; skipped where this user may not."""
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs rights that are missing here")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_durable_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    files.write_json_durably(target, {"a": 1})
    files.write_json_durably(target, {"a": 2})
    assert files.read_json(target) == {"a": 2}
    assert os.listdir(tmp_path) == ["state.json"]


@pytest.mark.crash
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_kill_at_any_call_leaves_the_old_file_or_the_new_one(tmp_path: Path, call: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    target = tmp_path / "state"
    kills = 0
    for count in range(1, 4):
        target.write_bytes(b"old")
        traced = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={count}",
             sys.executable, "-B", "-c", WRITE, str(target)],
            capture_output=True,
        )  # fmt: skip
        killed = traced.returncode != 0
        kills += killed
        assert target.read_bytes() in ((b"old", b"new" * 1000) if killed else (b"new" * 1000,))
    assert kills > 0, "nothing was killed, so nothing was proven"


def test_a_full_disk_is_named_and_the_old_file_stays(small_disk: Path) -> None:
    target = small_disk / "state"
    files.write_durably(target, b"old")
    with pytest.raises(DiskError, match="Cannot write") as refused:
        files.write_durably(target, b"x" * 200_000)
    assert refused.value.found == "the disk is full"
    assert refused.value.exit_code == 73
    assert target.read_bytes() == b"old"
    assert os.listdir(small_disk) == ["state"]


def test_missing_inodes_are_named_as_such(tmp_path: Path) -> None:
    point = tmp_path / "few"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=4", "tmpfs", str(point)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs rights that are missing here")
    try:
        for number in range(3):
            files.write_durably(point / f"file{number}", b"x")
        with pytest.raises(DiskError) as refused:
            files.write_durably(point / "one too many", b"x")
        assert refused.value.found == "the file system is out of inodes"
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_read_only_file_system_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError) as refused:
        files.write_durably(small_disk / "state", b"x")
    assert refused.value.found == "the file system is read-only"


def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        "import sys, time; from pathlib import Path; from overnight.disk.files import Lock;"
        "lock = Lock(Path(sys.argv[1])); print(lock.acquire(holder={'pid': 4711, 'host': 'there', 'since': 'noon'}),"
        " flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "True"
        lock = files.Lock(path)
        assert not lock.acquire(holder={"pid": os.getpid()})
        assert files.lock_holder(path) == {"pid": 4711, "host": "there", "since": "noon"}
        with pytest.raises(BusyError, match="4711"):
            files.require_lock(lock, holder={}, what="Another daemon holds this workspace")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    assert files.lock_holder(path) is None
    assert lock.acquire(holder={"pid": os.getpid()})
    assert json.loads(path.read_text()) == {"pid": os.getpid()}
    lock.release()


def test_a_deleted_lock_file_is_noticed_by_its_holder(tmp_path: Path) -> None:
    lock = files.Lock(tmp_path / "lock")
    assert lock.acquire(holder={})
    assert lock.is_intact()
    (tmp_path / "lock").unlink()
    assert not lock.is_intact()
    lock.release()


def test_a_tree_outside_its_border_is_never_removed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (outside / "kept").mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    with pytest.raises(ValueError, match="not inside"):
        files.remove_tree(outside, inside=inside)
    with pytest.raises(ValueError, match="not inside"):
        files.remove_tree(inside / ".." / "outside", inside=inside)
    files.remove_tree(inside / "link", inside=inside)
    assert (outside / "kept").is_dir()
    assert not (inside / "link").exists()


def test_a_reader_never_meets_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    files.write_json_atomically(path, {"step": 0, "pad": "x" * 5000})
    write = (
        "import sys; from pathlib import Path; from overnight.disk import files\n"
        "for step in range(1, 2000): files.write_json_atomically(Path(sys.argv[1]), {'step': step, 'pad': 'x' * 5000})"
    )
    last = 0
    with subprocess.Popen([sys.executable, "-c", write, str(path)]) as writer:
        while writer.poll() is None:
            step = files.read_json(path)["step"]
            assert step >= last
            last = step
    assert files.read_json(path)["step"] == 1999


@pytest.mark.timeout(20)
def test_nothing_that_reads_a_file_of_ours_waits_for_a_pipe_or_falls_over_a_folder(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for strange in (pipe, folder):
        for read in (files.read_json, files.sha256_of, files.blake3_of):
            with pytest.raises(OSError, match="not a regular file"):
                read(strange)
        assert files.lock_holder(strange) is None
    with pytest.raises(OSError):
        files.append_line(pipe, "a line")


def test_json_that_is_nested_without_end_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        files.read_json(path)


def test_a_folder_in_the_place_of_a_file_or_a_lock_makes_way_whole(tmp_path: Path) -> None:
    for name in ("state.json", "held.lock"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    files.write_json_durably(tmp_path / "state.json", {"a": 1})
    lock = files.Lock(tmp_path / "held.lock")
    assert lock.acquire(holder={"pid": 1})
    lock.release()
    assert files.read_json(tmp_path / "state.json") == {"a": 1}
    kept = sorted(path.read_text() for path in tmp_path.glob(f"*{files.ASIDE}*/content"))
    assert kept == ["held.lock", "state.json"]
