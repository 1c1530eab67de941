"""A file becomes one job, whatever happens in between, and no byte of the user's is lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import intake_rig
from intake_rig import GOOD, settings
from overnight import intake
from overnight.database import arrivals, connection, events, queue
from overnight.database.connection import Connection
from overnight.disk import builtin, claims, dataset_files, datasets
from overnight.disk.folder_lock import lock_folder
from overnight.disk.layout import Layout
from overnight.domain.errors import DataError
from overnight.domain.job import JobMove, JobState, Priority

BAD = b"{bad\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Layout, Connection]]:
    layout, opened = intake_rig.make(tmp_path / "workspace")
    yield layout, opened
    opened.close()


@pytest.fixture
def layout(made: tuple[Layout, Connection]) -> Layout:
    return made[0]


@pytest.fixture
def opened(made: tuple[Layout, Connection]) -> Connection:
    return made[1]


def drop(layout: Layout, name: str, content: bytes = GOOD + b"\n") -> str:
    (layout.inbox / name).write_bytes(content)
    return claims.claim_by_rename(layout, layout.inbox / name, at=time.time())


def take_all(layout: Layout, opened: Connection, **rules: Any) -> list[intake.Taken]:
    return list(intake.take_all(layout, opened, settings(**rules), now=time.time))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# the one path


def test_a_good_file_is_stored_queued_and_shown(layout: Layout, opened: Connection) -> None:
    drop(layout, "a.jsonl", GOOD + b"\n" + GOOD + b"\n")
    (taken,) = take_all(layout, opened)
    job = taken.job
    assert job is not None
    assert (job.file, job.state, job.examples, job.priority) == ("a.jsonl", JobState.QUEUED, 2, Priority.NORMAL)
    assert job.dataset is not None
    assert dataset_files.is_whole(dataset_files.find(layout.datasets, job.dataset))
    assert names(layout.waiting) == ["a.jsonl"]
    assert names(layout.inbox) == names(layout.claimed) == []
    counted = queue.accounting(opened, job.id)
    assert (counted["rows"], counted["duplicates"], counted["format"]) == (2, 1, "messages")


def test_a_bad_file_is_set_aside_with_all_its_problems(layout: Layout, opened: Connection) -> None:
    content = GOOD + b"\n" + BAD * 1500
    drop(layout, "a.jsonl", content)
    (taken,) = take_all(layout, opened)
    assert taken.job is not None
    assert taken.job.state is JobState.REJECTED
    assert taken.job.filed
    assert "line 2" in taken.job.reason
    assert (layout.rejected / "a.jsonl").read_bytes() == content
    report = json.loads((layout.rejected / "a.jsonl.report.json").read_text())
    assert len(report["problems"]) == report["problems_total"] == 1500
    assert (report["job"], report["file"], report["ok"]) == (taken.job.id, "a.jsonl", False)
    assert names(layout.datasets) == names(layout.claimed) == []
    assert queue.next_in_line(opened, now=time.time()) is None


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"], ids=["empty", "blank lines"])
def test_an_empty_file_is_rejected_loudly_and_kept(layout: Layout, opened: Connection, content: bytes) -> None:
    drop(layout, "a.jsonl", content)
    (taken,) = take_all(layout, opened)
    assert taken.job is not None
    assert taken.job.state is JobState.REJECTED
    assert "empty_file" in taken.job.reason
    assert (layout.rejected / "a.jsonl").read_bytes() == content
    assert any(event["kind"] == "job.rejected" for event in events.newest(opened))


def test_bad_rows_are_left_out_loudly_where_they_are_skipped(layout: Layout, opened: Connection) -> None:
    drop(layout, "a.jsonl", GOOD + b"\n" + BAD)
    (taken,) = take_all(layout, opened, bad_rows="skip")
    assert taken.job is not None
    assert (taken.job.state, taken.job.examples) == (JobState.QUEUED, 1)
    assert any("1 of 2 rows are bad" in event["message"] for event in events.newest(opened))


def test_a_bad_file_first_in_line_does_not_hold_up_the_others(layout: Layout, opened: Connection) -> None:
    for name, content in (("a.jsonl", BAD), ("b.jsonl", GOOD + b"\n")):
        drop(layout, name, content)
    assert [taken.job.state for taken in take_all(layout, opened) if taken.job] == [JobState.REJECTED, JobState.QUEUED]


def test_jobs_are_in_order_of_arrival_whatever_the_times_of_the_files(layout: Layout, opened: Connection) -> None:
    arrived = ["c.jsonl", "a.jsonl", "b.jsonl"]
    for name, stamp in zip(arrived, (9e9, 1.0, 5.0), strict=True):
        path = layout.inbox / name
        path.write_bytes(GOOD + b"\n")
        os.utime(path, (stamp, stamp))
        claims.claim_by_rename(layout, path, at=1000.0)  # a clock that stands still
    assert [taken.job.file for taken in take_all(layout, opened) if taken.job] == arrived


def test_a_clock_that_goes_back_does_not_change_the_order(layout: Layout, opened: Connection) -> None:
    for name, at in (("a.jsonl", 2000.0), ("b.jsonl", 1000.0), ("c.jsonl", 1500.0)):
        (layout.inbox / name).write_bytes(GOOD + b"\n")
        claims.claim_by_rename(layout, layout.inbox / name, at=at)
    assert [taken.job.file for taken in take_all(layout, opened) if taken.job] == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_the_same_name_again_is_a_new_job_and_both_files_are_kept(layout: Layout, opened: Connection) -> None:
    for said in (b"1", b"2"):
        drop(layout, "a.jsonl", GOOD.replace(b'"a"', b'"' + said + b'"') + b"\n")
        take_all(layout, opened)
    assert [job.id for job in queue.listing(opened)] == [1, 2]
    assert names(layout.waiting) == ["a.2.jsonl", "a.jsonl"]


def test_the_same_content_under_another_name_is_a_job_of_its_own_and_told(layout: Layout, opened: Connection) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        drop(layout, name)
        take_all(layout, opened)
    assert len(names(layout.datasets)) == 1
    assert queue.accounting(opened, 2)["same_content_jobs"] == [1]
    assert any("same content came before as job 1 (a.jsonl" in event["message"] for event in events.newest(opened))


def test_rows_trained_earlier_are_counted(layout: Layout, opened: Connection) -> None:
    drop(layout, "a.jsonl")
    take_all(layout, opened)
    queue.dispatch(opened, 1, settings={}, start_step=0, first_step=0, reason="", now=1.0)
    queue.move(opened, 1, JobMove.FINISH, expected=JobState.RUNNING, reason="", now=2.0)
    drop(layout, "b.jsonl", GOOD + b"\n" + GOOD.replace(b'"q"', b'"r"') + b"\n")
    take_all(layout, opened)
    assert queue.accounting(opened, 2)["already_trained"] == 1


def test_tokens_are_counted_with_the_base_models_own_tokenizer(layout: Layout, opened: Connection) -> None:
    builtin.make_tiny(layout.base / "tiny")
    drop(layout, "a.jsonl")
    tiny = settings().model_copy(update={"base_model": "builtin:tiny"})
    (taken,) = intake.take_all(layout, opened, tiny, now=time.time)
    assert taken.job is not None
    tokens = queue.accounting(opened, taken.job.id)["tokens"]
    assert tokens["exact"]
    assert tokens["total"] == tokens["supervised"] + tokens["masked"] > tokens["supervised"] == 2


# names

ODD_NAMES = {
    "longest": b"x" * 249 + b".jsonl",
    "line feed": b"a\nb.jsonl",
    "escape": b"a\x1b[31mred.jsonl",
    "leading dash": b"-rf.jsonl",
    "spaces": b"  a b .jsonl",
    "quotes": b"a\"b'c`$(x).jsonl",
    "not utf-8": b"a\xff\xfe.jsonl",
    "wide": "日本語🎉.jsonl".encode(),
    "right to left": "a\u202egnp.jsonl".encode(),
    "longest, wide": "語".encode() * 83 + b".jsonl",
}


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("content", [GOOD + b"\n", BAD], ids=["good", "bad"])
def test_odd_names_are_taken_and_shown_safely(layout: Layout, opened: Connection, name: str, content: bytes) -> None:
    raw = ODD_NAMES[name]
    drop(layout, os.fsdecode(raw), content)
    (taken,) = take_all(layout, opened)
    assert taken.job is not None
    assert taken.job.file.isprintable()
    assert len(taken.job.file.encode()) <= 255
    assert taken.job.file.endswith(".jsonl")
    folder = layout.waiting if taken.job.state is JobState.QUEUED else layout.rejected
    assert (folder / taken.job.file).read_bytes() == content
    json.dumps([taken.job.file, taken.job.reason]).encode()


def test_names_that_differ_only_in_what_is_cut_off_stay_apart(layout: Layout, opened: Connection) -> None:
    for end in ("1", "2"):
        drop(layout, "x" * 240 + end + ".jsonl")
    take_all(layout, opened)
    assert len(names(layout.waiting)) == 2


def test_a_file_of_somebody_else_in_the_way_is_not_overwritten(layout: Layout, opened: Connection) -> None:
    (layout.waiting / "a.jsonl").write_bytes(b"mine")
    (layout.rejected / "b.jsonl").write_bytes(b"mine too")
    drop(layout, "a.jsonl")
    drop(layout, "b.jsonl", BAD)
    take_all(layout, opened)
    assert (layout.waiting / "a.jsonl").read_bytes() == b"mine"
    assert names(layout.waiting) == ["a.1.2.jsonl", "a.jsonl"]
    assert (layout.rejected / "b.jsonl").read_bytes() == b"mine too"
    assert names(layout.rejected) == ["b.2.2.jsonl", "b.2.2.jsonl.report.json", "b.jsonl"]


# adding a copy


def test_adding_copies_and_leaves_the_origin_alone(layout: Layout, opened: Connection, tmp_path: Path) -> None:
    origin = tmp_path / "a.jsonl"
    origin.write_bytes(GOOD)
    claims.claim_by_copy(layout, origin, at=1.0, priority=Priority.HIGH)
    (taken,) = take_all(layout, opened)
    assert taken.job is not None
    assert taken.job.priority is Priority.HIGH
    assert origin.read_bytes() == GOOD
    assert os.stat(origin).st_nlink == 1


def test_what_is_no_regular_file_is_not_added(layout: Layout, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(OSError):
            claims.claim_by_copy(layout, path, at=1.0, priority=Priority.NORMAL)
    assert names(layout.claimed) == []


def test_a_file_that_vanished_leaves_no_claim(layout: Layout) -> None:
    with pytest.raises(FileNotFoundError):
        claims.claim_by_rename(layout, layout.inbox / "gone.jsonl", at=1.0)
    assert names(layout.claimed) == []


def test_an_unreadable_file_waits_and_is_taken_once_it_can_be_read(layout: Layout, opened: Connection) -> None:
    claim = drop(layout, "a.jsonl")
    drop(layout, "b.jsonl")
    path = next((layout.claimed / claim).iterdir())
    path.chmod(0)
    with intake_rig.bound_by_modes():
        first, second = take_all(layout, opened)
    assert isinstance(first.error, DataError)
    assert first.error.code == "unreadable"
    assert second.job is not None
    path.chmod(0o644)
    assert [taken.job.file for taken in take_all(layout, opened) if taken.job] == ["a.jsonl"]


# two at once


def test_a_claim_that_somebody_works_on_is_left_to_them(layout: Layout, opened: Connection) -> None:
    claim = drop(layout, "a.jsonl")
    with lock_folder(layout.claimed / claim) as is_ours:
        assert is_ours
        (taken,) = take_all(layout, opened)
        assert taken.job is None
        assert taken.error is None
    assert queue.listing(opened) == []
    (taken,) = take_all(layout, opened)
    assert taken.job is not None


def test_many_takers_make_each_file_one_job(layout: Layout, opened: Connection) -> None:
    for number in range(20):
        drop(layout, f"{number:02d}.jsonl")

    def work() -> None:
        own = connection.connect(layout.database)
        take_all(layout, own)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(job.file for job in queue.listing(opened)) == [f"{number:02d}.jsonl" for number in range(20)]
    assert names(layout.waiting) == [f"{number:02d}.jsonl" for number in range(20)]
    assert names(layout.claimed) == []


# crashes


def test_a_claim_without_a_file_is_dropped(layout: Layout, opened: Connection) -> None:
    (layout.claimed / "00000000000000000001-normal-abc").mkdir()
    (taken,) = take_all(layout, opened)
    assert taken.job is None
    assert names(layout.claimed) == []


def test_leftovers_of_copies_are_removed_and_live_ones_stay(layout: Layout) -> None:
    dead, alive = layout.claimed / ".new-dead", layout.claimed / ".new-alive"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(b"half")
    with lock_folder(alive):
        assert claims.remove_leftovers(layout) == [".new-dead"]
    assert names(layout.claimed) == [".new-alive"]


def test_taking_again_after_the_job_was_made_makes_no_second_one(layout: Layout, opened: Connection) -> None:
    claim = drop(layout, "a.jsonl")
    kept = shutil.copytree(layout.claimed / claim, layout.root / "kept")
    take_all(layout, opened)
    (layout.waiting / "a.jsonl").unlink()
    shutil.copytree(kept, layout.claimed / claim)
    (taken,) = take_all(layout, opened)
    assert taken.job is not None
    assert len(queue.listing(opened)) == 1
    assert names(layout.waiting) == ["a.jsonl"]
    assert arrivals.find_by_claim(opened, claim) == taken.job


FILES_IN = {"a.jsonl": GOOD + b"\n" + GOOD + b"\n", "b.jsonl": BAD + GOOD + b"\n"}
STRACE = shutil.which("strace")


def start_killed(root: Path, syscall: str, number: int, *added: Path) -> int | None:
    """Add and take everything in a child killed at its n-th call; return the signal, None where it got through."""
    assert STRACE is not None
    done = subprocess.run(
        [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={syscall}",
         "-e", f"inject={syscall}:signal=KILL:when={number}", sys.executable, intake_rig.__file__, str(root),
         *map(str, added)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    return signal.SIGKILL


def count_calls(root: Path, syscall: str) -> int:
    """Return how many such calls an undisturbed child makes in the workspace."""
    assert STRACE is not None
    log = root.parent / "calls"
    subprocess.run(
        [STRACE, "-f", "-qq", "-o", str(log), "-e", f"trace={syscall}", sys.executable, intake_rig.__file__, str(root)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return len(re.findall(rf"\b({syscall.replace(',', '|')})\(", log.read_text()))


@pytest.mark.crash
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("syscall", ["rename", "mkdir", "rmdir", "fsync"])
def test_a_crash_at_any_point_is_repaired_by_taking_again(tmp_path: Path, syscall: str) -> None:
    def fresh(name: str) -> Path:
        layout, opened = intake_rig.make(tmp_path / name)
        opened.close()
        for file, content in FILES_IN.items():
            (layout.inbox / file).write_bytes(content)
        return layout.root

    count = count_calls(fresh("whole"), syscall)
    assert count >= 3
    step = 2 if syscall == "fsync" and "OVERNIGHT_EVERY_ARROW" not in os.environ else 1
    num_killed = 0
    for number in range(1, count + 1, step):
        root = fresh(f"{number}")
        num_killed += start_killed(root, syscall, number) is not None
        intake_rig.take_everything(root)  # what the next start does
        check_everything_is_there_once(Layout(root))
        shutil.rmtree(root)
    assert num_killed >= count // step // 2, "the kills did not happen"


@pytest.mark.crash
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_a_crash_while_a_copy_is_made_leaves_one_whole_job_or_none(tmp_path: Path) -> None:
    layout, opened = intake_rig.make(tmp_path / "workspace")
    origin = tmp_path / "origin.jsonl"
    origin.write_bytes(GOOD + b"\n")
    num_jobs = []
    for number in range(1, 9):
        start_killed(layout.root, "rename" if number <= 5 else "fsync", number if number <= 5 else number - 5, origin)
        before = len(queue.listing(opened))
        intake_rig.take_everything(layout.root)
        jobs = queue.listing(opened)
        num_jobs.append(len(jobs) - before)
        assert all(job.sha256 == hashlib.sha256(GOOD + b"\n").hexdigest() for job in jobs)
        assert origin.read_bytes() == GOOD + b"\n"
        claims.remove_leftovers(layout)
        datasets.clean_up(layout.datasets)
        assert names(layout.claimed) == []
    assert set(num_jobs) == {0, 1}, "killed before the copy was whole: none; after: one"
    assert len(names(layout.waiting)) == len(queue.listing(opened))
    opened.close()


def check_everything_is_there_once(layout: Layout) -> None:
    opened = connection.connect(layout.database)
    jobs = {job.file: job for job in queue.listing(opened)}
    assert len(queue.listing(opened)) == 2
    assert {name: job.state.value for name, job in jobs.items()} == {"a.jsonl": "queued", "b.jsonl": "rejected"}
    opened.close()
    for name, content in FILES_IN.items():
        folder = layout.rejected if name == "b.jsonl" else layout.waiting
        assert (folder / name).read_bytes() == content
        assert jobs[name].sha256 == hashlib.sha256(content).hexdigest()
        identity = jobs[name].dataset
        assert identity is None or dataset_files.is_whole(dataset_files.find(layout.datasets, identity))
    assert json.loads((layout.rejected / "b.jsonl.report.json").read_text())["problems_total"] == 1
    assert names(layout.inbox) == []
    assert [name for name in names(layout.claimed) if not name.startswith(".new-")] == []
    claims.remove_leftovers(layout)
    datasets.clean_up(layout.datasets)
    assert names(layout.claimed) == []
    assert len(names(layout.datasets)) == 1
