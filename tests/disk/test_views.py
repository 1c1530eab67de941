"""The folders for people: whatever is done to the files in them, what was given and what was trained is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.disk import dataset_files, datasets, views
from overnight.disk.layout import Layout
from overnight.disk.scanning import Rules
from overnight.domain.job import Job, JobState, Priority
from overnight.domain.names import NAME_LIMIT, numbered_name, safe_name

CONTENT = b'{"text":"a"}\n'
WINDOWS = b'{"text":"a"}\r\n'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    for folder in made.folders():
        folder.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def queued(layout: Layout) -> Callable[..., Job]:
    def queue_one(number: int = 1, name: str = "a.jsonl", content: bytes = CONTENT) -> Job:
        source = layout.claimed / name
        source.write_bytes(content)
        validation = datasets.store(source, layout.datasets, rules=Rules(), encoder=None)
        job = Job(
            id=number, file=name, sha256=hashlib.sha256(content).hexdigest(), dataset=validation.dataset,
            state=JobState.QUEUED, priority=Priority.NORMAL, examples=1, steps=None, attempts=0, charged=0, overtaken=0,
            reason="", submitted_at=1.0, finished_at=None, not_before=0.0, start_step=None, settings=None, filed=False,
        )  # fmt: skip
        views.into_waiting(layout, job, source, is_first=number == 1)
        return job

    return queue_one


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [CONTENT, WINDOWS], ids=["as stored", "with other line ends"])
def test_an_untouched_file_goes_the_whole_way_as_it_was_given(
    layout: Layout, queued: Callable[..., Job], content: bytes
) -> None:
    job = queued(content=content)
    views.into_processing(layout, job, is_first=True)
    assert (names(layout.waiting), names(layout.processing)) == ([], ["a.jsonl"])
    inode = (layout.processing / "a.jsonl").stat().st_ino
    assert views.into_done(layout, job, is_first=True) == layout.done / "a.jsonl"
    assert (layout.done / "a.jsonl").read_bytes() == content
    assert (layout.done / "a.jsonl").stat().st_ino == inode
    assert names(layout.processing) == []


def test_doing_it_again_after_a_crash_changes_nothing(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    for _ in range(2):
        views.into_processing(layout, job, is_first=True)
    for _ in range(3):
        assert views.into_done(layout, job, is_first=True) == layout.done / "a.jsonl"
    assert names(layout.done) == ["a.jsonl"]


def test_a_deleted_file_comes_back_from_the_store(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    views.into_processing(layout, job, is_first=True)
    (layout.processing / "a.jsonl").unlink()
    path = views.into_done(layout, job, is_first=True)
    assert path.read_bytes() == CONTENT
    assert job.dataset is not None
    assert path.stat().st_ino != dataset_files.find(layout.datasets, job.dataset).rows_file.stat().st_ino


def test_an_edited_file_is_kept_beside_what_was_trained(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    views.into_processing(layout, job, is_first=True)
    (layout.processing / "a.jsonl").write_bytes(b"edited")
    for _ in range(2):
        assert views.into_done(layout, job, is_first=True).read_bytes() == CONTENT
    assert names(layout.done) == ["a.1.edited.jsonl", "a.jsonl"]
    assert (layout.done / "a.1.edited.jsonl").read_bytes() == b"edited"


def test_something_else_put_in_its_place_is_left_alone(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    (layout.waiting / "a.jsonl").unlink()
    (layout.waiting / "a.jsonl").symlink_to("/etc/hostname")
    views.into_processing(layout, job, is_first=True)
    assert views.into_done(layout, job, is_first=True).read_bytes() == CONTENT
    assert (layout.waiting / "a.jsonl").is_symlink()


def test_a_file_that_lies_in_done_already_is_not_overwritten(layout: Layout, queued: Callable[..., Job]) -> None:
    (layout.done / "a.jsonl").write_bytes(b"mine")
    job = queued()
    path = views.into_done(layout, job, is_first=True)
    assert path == layout.done / "a.1.2.jsonl"
    assert path.read_bytes() == CONTENT
    assert (layout.done / "a.jsonl").read_bytes() == b"mine"


def test_jobs_of_one_name_never_meet(layout: Layout, queued: Callable[..., Job]) -> None:
    first, second = queued(1, content=CONTENT), queued(2, content=b'{"text":"b"}\n')
    views.into_processing(layout, second, is_first=False)
    assert (names(layout.processing), names(layout.waiting)) == (["a.2.jsonl"], ["a.jsonl"])
    views.into_done(layout, second, is_first=False)
    views.into_done(layout, first, is_first=True)
    assert names(layout.done) == ["a.2.jsonl", "a.jsonl"]
    assert (layout.done / "a.2.jsonl").read_bytes() == b'{"text":"b"}\n'


def test_a_failed_file_has_its_reason_beside_it_until_it_is_queued_again(
    layout: Layout, queued: Callable[..., Job]
) -> None:
    job = queued()
    views.into_processing(layout, job, is_first=True)
    views.into_failed(layout, job, {"reason": "nan"}, is_first=True)
    assert names(layout.failed) == ["a.jsonl", "a.jsonl.report.json"]
    assert json.loads((layout.failed / "a.jsonl.report.json").read_text()) == {"reason": "nan"}
    views.back_into_waiting(layout, job, is_first=True)
    assert (names(layout.failed), names(layout.waiting)) == ([], ["a.jsonl"])


def test_an_interrupted_file_waits_again(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    views.into_processing(layout, job, is_first=True)
    views.back_into_waiting(layout, job, is_first=True)
    assert names(layout.waiting) == ["a.jsonl"]


def test_without_file_and_without_store_nothing_is_invented(layout: Layout, queued: Callable[..., Job]) -> None:
    job = queued()
    (layout.waiting / "a.jsonl").unlink()
    assert job.dataset is not None
    dataset_files.find(layout.datasets, job.dataset).rows_file.unlink()
    views.into_done(layout, job, is_first=True)
    assert names(layout.done) == []


LONG = ["x" * 300 + ".jsonl", "語" * 100 + ".jsonl", "x" * 100 + "." + "y" * 200, "." + "x" * 254]


@pytest.mark.parametrize("name", LONG, ids=["ascii", "wide", "long ending", "no stem"])
def test_a_shown_name_leaves_room_for_every_suffix(name: str) -> None:
    shown = safe_name(name)
    assert len(shown.encode()) <= NAME_LIMIT
    assert len((numbered_name(shown, 10**12, "edited", 99) + views.REPORT).encode()) <= 255
    assert safe_name(name + "2") != shown


def test_a_plain_name_is_shown_as_it_is() -> None:
    assert safe_name("my data (1).v2.jsonl") == "my data (1).v2.jsonl"
    assert numbered_name("my.v2.jsonl", 7) == "my.v2.7.jsonl"
    assert numbered_name("plain", 7) == "plain.7"
    assert numbered_name(".hidden", 7) == ".hidden.7"
