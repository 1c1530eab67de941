from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.disk import checkpoints, sealed
from overnight.disk.manifest import digest_of
from overnight.domain.checkpoint import Manifest, Verdict, checkpoint_name
from overnight.domain.errors import DiskError

PARTS = {
    "adapter_model.safetensors": b"w" * 5000,
    "optimizer.pt": b"o" * 9000,
    "scheduler.pt": b"s" * 300,
    "rng_state.pth": b"r" * 700,
    "trainer_state.json": b'{"global_step": 5}',
    "tokenizer/tokenizer.json": b"{}",
}


def manifest(step: int) -> Manifest:
    return Manifest(
        step=step, job=1, job_step=step, job_total=100, start_step=0, attempt="000001-01", dataset_id="d" * 64,
        created_at=1.5, model_name="m", method="lora", locked={"lora.r": 16}, data_cursor={"epoch": 0},
        fingerprints={"base_model": "blake3:0"}, environment={"torch": "2"}, files={},
    )  # fmt: skip


def staged(root: Path, *, salt: bytes = b"") -> Path:
    staging = root / "staging"
    for name, data in PARTS.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(data + salt)
    return staging


def committed(root: Path, step: int) -> Path:
    target = root / "current_model" / checkpoint_name(step)
    checkpoints.commit(staged(root, salt=str(step).encode()), target, manifest(step))
    return target


def test_a_committed_checkpoint_is_verified_and_lists_each_file(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)

    report = checkpoints.verify(folder)

    assert report.verdict is Verdict.VERIFIED
    assert report.step == 5
    assert report.manifest is not None
    assert set(report.manifest.files) == set(PARTS)
    assert report.manifest == checkpoints.read_manifest(folder)
    assert report.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert not (tmp_path / "staging").exists()


def test_a_commit_never_merges_into_a_folder_that_is_there(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    with pytest.raises(FileExistsError):
        committed(tmp_path, 5)

    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_what_stands_in_the_way_is_set_aside_whole(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    (folder / "optimizer.pt").write_bytes(b"")

    resting = checkpoints.set_aside(folder, tmp_path / "trash")

    assert not folder.exists()
    assert (resting / "optimizer.pt").read_bytes() == b""
    assert committed(tmp_path, 5) == folder


@pytest.mark.parametrize("name", [*PARTS, "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    ["removed", "emptied", "truncated", "zero-filled", "bit flipped", "replaced by a link", "replaced by a pipe"],
)
def test_any_damage_to_any_file_makes_it_untrusted(tmp_path: Path, name: str, damage: str) -> None:
    folder = committed(tmp_path, 5)
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage == "emptied":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(data[:-3])
    elif damage == "zero-filled":
        path.write_bytes(bytes(len(data)))
    elif damage == "bit flipped":
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    elif damage == "replaced by a link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "replaced by a pipe":
        os.mkfifo(path)

    report = checkpoints.verify(folder)

    assert report.verdict is (Verdict.INCOMPLETE if damage == "removed" else Verdict.CORRUPT)
    assert name.split("/")[-1].split(".")[0] in report.reason


def test_a_manifest_whose_hash_or_step_was_edited_is_found(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    value = json.loads((folder / "manifest.json").read_text())

    for key, wrong in (("job", 2), ("step", 6), ("files", {}), ("schema", 99)):
        (folder / "manifest.json").write_text(json.dumps({**value, key: wrong}))
        assert checkpoints.verify(folder).verdict is Verdict.CORRUPT, key

    (folder / "manifest.json").write_text(json.dumps(value, indent=7, sort_keys=True))
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED, "spacing and order carry no meaning"


def test_a_whole_checkpoint_under_another_steps_name_is_not_used(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    folder.rename(folder.with_name("checkpoint-9"))

    report = checkpoints.verify(folder.with_name("checkpoint-9"))

    assert report.verdict is Verdict.CORRUPT
    assert "9" in report.reason
    assert "5" in report.reason


def test_files_of_two_steps_mixed_are_found(tmp_path: Path) -> None:
    five, nine = committed(tmp_path, 5), committed(tmp_path, 9)
    shutil.copy(five / "optimizer.pt", nine / "optimizer.pt")

    newest, passed_over = checkpoints.newest_verified(tmp_path / "current_model")

    assert newest is not None
    assert newest.step == 5
    assert [report.step for report in passed_over] == [9]
    assert "optimizer.pt" in passed_over[0].reason


def test_steps_are_ordered_as_numbers_whatever_the_times_say(tmp_path: Path) -> None:
    folders = [committed(tmp_path, step) for step in (900, 3200, 1000)]
    for age, folder in enumerate(folders):
        os.utime(folder, (age * 1000.0, age * 1000.0))

    reports = checkpoints.scan(tmp_path / "current_model", verify_content=True)

    assert [report.step for report in reports] == [3200, 1000, 900]


def test_junk_is_listed_and_never_followed(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    model = folder.parent
    for name in ("checkpoint-", "checkpoint--1", "checkpoint-abc", "checkpoint-07", "checkpoint-5.tmp", "notes"):
        (model / name).mkdir()
    (model / "checkpoint-99999999").mkdir()
    (model / "checkpoint-8").symlink_to(folder, target_is_directory=True)
    (model / "checkpoint-7").write_bytes(b"a file")
    (model / ".checkpoint-6.tmp").mkdir()

    reports = {Path(report.path).name: report for report in checkpoints.scan(model, verify_content=True)}
    newest, passed_over = checkpoints.newest_verified(model)

    assert newest is not None
    assert newest.step == 5
    assert [report.step for report in passed_over] == [99999999, 8, 7]
    assert reports["checkpoint-99999999"].verdict is Verdict.INCOMPLETE
    foreign = {name for name, report in reports.items() if report.verdict is Verdict.FOREIGN}
    assert foreign == {
        "checkpoint-", "checkpoint--1", "checkpoint-abc", "checkpoint-07", "checkpoint-5.tmp", "notes",
        "checkpoint-8", "checkpoint-7",
    }  # fmt: skip
    assert all(reports[name].step == checkpoints.NO_STEP for name in foreign - {"checkpoint-8", "checkpoint-7"})


def test_no_checkpoint_is_ever_invented(tmp_path: Path) -> None:
    assert checkpoints.newest_verified(tmp_path / "none") == (None, [])
    folder = committed(tmp_path, 5)
    (folder / "optimizer.pt").unlink()

    newest, passed_over = checkpoints.newest_verified(folder.parent)

    assert newest is None
    assert passed_over[0].verdict is Verdict.INCOMPLETE


def test_a_stranger_in_the_folder_is_told_and_does_no_harm(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)
    (folder / "README.md").write_text("mine")

    report = checkpoints.verify(folder)

    assert report.verdict is Verdict.VERIFIED
    assert "README.md" in report.reason


def test_a_quick_scan_finds_wrong_sizes_and_says_that_it_read_no_content(tmp_path: Path) -> None:
    five, nine = committed(tmp_path, 5), committed(tmp_path, 9)
    (nine / "scheduler.pt").write_bytes(b"")
    (five / "scheduler.pt").write_bytes(bytes((five / "scheduler.pt").stat().st_size))

    nine_report, five_report = checkpoints.scan(five.parent, verify_content=False)

    assert nine_report.verdict is Verdict.CORRUPT
    assert "not read" in five_report.reason


def test_a_thousand_checkpoints_are_looked_through_in_seconds(tmp_path: Path) -> None:
    first = committed(tmp_path, 1)
    value = json.loads((first / "manifest.json").read_text())
    for step in range(2, 1001):
        folder = first.with_name(checkpoint_name(step))
        shutil.copytree(first, folder)
        del value["digest"]
        value["step"] = step
        value["digest"] = digest_of(value)
        (folder / "manifest.json").write_text(json.dumps(value))
    started = time.monotonic()

    newest, _ = checkpoints.newest_verified(first.parent)
    reports = checkpoints.scan(first.parent, verify_content=False)

    assert newest is not None
    assert newest.step == 1000
    assert len(reports) == 1000
    assert time.monotonic() - started < 30


def test_a_refused_write_leaves_no_checkpoint_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = staged(tmp_path)
    (staging / "optimizer.pt").unlink()
    (staging / "optimizer.pt").symlink_to(tmp_path / "nowhere")  # never followed: it is simply not part of it
    kept = checkpoints.commit(staging, tmp_path / "model" / "checkpoint-1", manifest(1))
    assert "optimizer.pt" not in kept.files

    (tmp_path / "flat").write_bytes(b"a file where the model directory should be")
    with pytest.raises(DiskError):
        checkpoints.commit(staged(tmp_path), tmp_path / "flat" / "checkpoint-1", manifest(1))
    assert (tmp_path / "staging" / "adapter_model.safetensors").exists()


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "current_model"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_model_folder_on_another_disk_gets_whole_checkpoints_too(tmp_path: Path, other_disk: Path) -> None:
    folder = committed(tmp_path, 5)
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED
    assert os.listdir(other_disk) == ["checkpoint-5"]
    assert not (tmp_path / "staging").exists()
    resting = checkpoints.set_aside(folder, tmp_path / "trash")
    assert (resting / "optimizer.pt").exists()
    assert not folder.exists()


CHILD = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_checkpoints import committed
    committed(Path({root!r}), 9)
"""


@pytest.mark.crash
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")
def test_killed_at_each_sync_and_rename_of_a_commit_the_older_one_stays_and_the_new_one_is_whole_or_absent(
    tmp_path: Path,
) -> None:
    committed(tmp_path, 5)
    code = textwrap.dedent(CHILD).format(tests=str(Path(__file__).parent), root=str(tmp_path))
    seen: set[int] = set()
    for call in ("fsync", "rename"):
        for count in range(1, 40):
            shutil.rmtree(tmp_path / "staging", ignore_errors=True)
            shutil.rmtree(tmp_path / "current_model" / "checkpoint-9", ignore_errors=True)
            done = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                 "-e", f"inject={call}:signal=KILL:when={count}", sys.executable, "-c", code],
                capture_output=True, timeout=60, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
            newest, passed_over = checkpoints.newest_verified(tmp_path / "current_model")
            assert newest is not None
            assert passed_over == []
            seen.add(newest.step)
            if done.returncode == 0:
                break
        else:
            pytest.fail(f"the commit never ended for {call}")
    assert seen == {5, 9}


@contextlib.contextmanager
def no_handle_left() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_out_of_handles_no_checkpoint_is_called_damaged_and_no_empty_one_is_committed(tmp_path: Path) -> None:
    """Else the newest one, whole, would be set aside: the work of a job that is done would be gone from the model."""
    folder = committed(tmp_path, 5)
    staging = staged(tmp_path)
    for look in (checkpoints.verify, checkpoints.judge_by_looks):
        with no_handle_left(), pytest.raises(OSError, match="Too many open files"):
            look(folder)
    with no_handle_left(), pytest.raises(OSError, match="Too many open files"):
        list(sealed.regular_files(staging))
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    folder = committed(tmp_path, 5)

    value = checkpoints.read_manifest(folder)

    assert dataclasses.replace(value, files={}) == manifest(5)
