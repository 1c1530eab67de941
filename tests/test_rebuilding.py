"""A lost database is made anew from what lies in the workspace: exactly, or not at all; nothing is trained twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight import rebuilding
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, OvernightError
from overnight.domain.job import Job, JobState
from simulated_rig import Rig

LONG = 60
MIDDLE = 48
"""Rows of the job that is interrupted: twelve steps."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Make a workspace in which one job is done, one failed, one was interrupted, two wait (of one content)."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("world") / "workspace", patch)
        rig.make(checkpoint__every_steps=2, queue__max_attempts=1)
        context = rig.context()
        rig.simulate(step_s=0)
        rig.drop("done.jsonl", rows=8)
        rig.tick_until(context, lambda: (rig.layout.done / "done.jsonl").exists(), timeout=LONG)
        rig.simulate(fault="data@1:9")
        rig.drop("failed.jsonl", rows=8)
        rig.tick_until(context, lambda: (rig.layout.failed / "failed.jsonl").exists(), timeout=LONG)
        rig.simulate(step_s=0.5)
        rig.drop("middle.jsonl", rows=MIDDLE)
        rig.tick_until(context, lambda: rig.layout.checkpoint(4).is_dir(), timeout=LONG)
        rig.wish("paused", reason="the operator pauses")
        rig.tick_until(context, lambda: context.standing.state == "paused", timeout=LONG)
        data = b'{"text": "the same"}\n' * 4
        for name in ("waits.jsonl", "again.jsonl"):
            rig.drop(name, data=data)
            rig.tick_until(context, lambda name=name: (rig.layout.waiting / name).exists(), timeout=LONG)
        rig.settle()
        yield rig


@pytest.fixture
def rig(world: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "workspace", monkeypatch)
    shutil.copytree(world.layout.root, made.layout.root)
    first, second = made.layout.waiting / "waits.jsonl", made.layout.waiting / "again.jsonl"
    while second.stat().st_ctime_ns <= first.stat().st_ctime_ns:  # the order of arrival, which a copy does not keep
        second.chmod(0o644)
    made.simulate(step_s=0)
    yield made
    made.end()


@pytest.fixture(scope="module")
def expected(world: Rig) -> dict[str, Any]:
    """Return the model with which the run ends where the database is not lost."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(world.layout.root.with_name("expected"), patch)
        shutil.copytree(world.layout.root, rig.layout.root)
        rig.simulate(step_s=0)
        finish(rig)
        rig.end()
        return rig.model()


def finish(rig: Rig) -> None:
    rig.withdraw("paused")
    context = rig.context()
    open_states = (JobState.QUEUED, JobState.RUNNING)
    rig.tick_until(context, lambda: not any(job.state in open_states for job in rig.jobs()), timeout=LONG)
    rig.tick_until(context, lambda: not list(rig.layout.processing.iterdir()), timeout=LONG)


def remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)


def overwrite_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": remove,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another kind of file": lambda path: path.write_text("not a database at all\n" * 300),
    "its pages overwritten": overwrite_pages,
    "its table of jobs dropped": lambda path: drop_jobs(path),
    "a torn log beside none": lambda path: (remove(path), Path(f"{path}-wal").write_bytes(b"torn" * 900)),
}


def drop_jobs(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("DROP TABLE jobs")
    connection.commit()
    connection.close()


def told(job: Job) -> dict[str, Any]:
    """Return what must be as it was of a job."""
    names = ("file", "sha256", "dataset", "state", "examples", "attempts", "start_step", "settings", "filed")
    value = {name: getattr(job, name) for name in names}
    if job.state is not JobState.QUEUED:  # nothing of it is used again
        for name in ("start_step", "settings"):
            value.pop(name)
    return value


EVERY = "OVERNIGHT_EVERY_DAMAGE" in os.environ
QUICK = ("missing", "its pages overwritten", "its table of jobs dropped", "a torn log beside none")


@pytest.mark.parametrize("damage", DAMAGES if EVERY else QUICK)
def test_a_lost_database_is_made_anew_and_the_run_ends_with_the_same_bytes(
    rig: Rig, expected: dict[str, Any], damage: str
) -> None:
    before = [told(job) for job in rig.jobs()]
    DAMAGES[damage](rig.layout.database)
    mended = rebuilding.mend(rig.layout, now=1000.0)
    assert mended is not None
    assert mended.notes == []
    assert [told(job) for job in rig.jobs()] == before
    connection = rig.connect()
    assert [row["name"] for row in connection.execute("SELECT name FROM intents")] == ["paused"], "the pause survives"
    connection.close()
    assert "made anew from the attempts" in rig.events("database.rebuilt")[0]["message"]
    assert rig.events("database.rebuilt")[0]["level"] == "error"
    finish(rig)
    assert rig.model() == expected
    rows = 8 + MIDDLE + 4 + 4
    assert len(rig.model()["ledger"]) == rows
    assert len(set(rig.model()["ledger"])) == rows - 4, (
        "the two files of one content, once each, and nothing else twice"
    )
    assert sorted(path.name for path in rig.layout.done.iterdir()) == [
        "again.jsonl", "done.jsonl", "middle.jsonl", "waits.jsonl",
    ]  # fmt: skip
    kept = list(rig.layout.state.glob("state.db*damaged*"))
    assert bool(kept) == (damage != "missing"), "the damaged file is kept"


def test_a_sound_database_is_left_alone(rig: Rig) -> None:
    before = rig.layout.database.read_bytes()
    assert rebuilding.mend(rig.layout, now=1.0) is None
    assert rig.layout.database.read_bytes() == before


def test_a_newer_format_is_refused_untouched(rig: Rig) -> None:
    connection = sqlite3.connect(rig.layout.database)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    before = rig.layout.database.read_bytes()
    with pytest.raises(OvernightError, match="newer Overnight"):
        rebuilding.mend(rig.layout, now=1.0)
    assert rig.layout.database.read_bytes() == before


def hide_spec(layout: Layout) -> None:
    (layout.attempts / "000003-01" / "spec.json").write_text("{")


def lose_attempts(layout: Layout) -> None:
    shutil.rmtree(layout.attempts)
    layout.attempts.mkdir()


@pytest.mark.parametrize("lose", [hide_spec, lose_attempts], ids=["its spec is torn", "all attempts are gone"])
def test_where_nobody_can_tell_how_a_begun_job_goes_on_it_is_refused_untouched(
    rig: Rig, lose: Callable[[Layout], None]
) -> None:
    lose(rig.layout)
    rig.layout.database.write_bytes(b"torn")
    before = sorted((path, path.stat().st_mtime_ns) for path in rig.layout.root.rglob("*") if path.is_file())
    with pytest.raises(OvernightError, match="cannot be made anew exactly") as refused:
        rebuilding.mend(rig.layout, now=1.0)
    assert "restore .overnight/ from a backup" in str(refused.value)
    after = sorted((path, path.stat().st_mtime_ns) for path in rig.layout.root.rglob("*") if path.is_file())
    ours = {rig.layout.daemon_lock}
    assert [one for one in after if one[0] not in ours] == [one for one in before if one[0] not in ours]


def test_what_may_have_been_trained_is_never_queued_by_itself(rig: Rig) -> None:
    """The files of a waiting and of a trained job are gone from the folders, and what trained them is forgotten."""
    for path in (rig.layout.waiting / "waits.jsonl", rig.layout.waiting / "again.jsonl"):
        path.unlink()
    (rig.layout.done / "done.jsonl").unlink()
    remove(rig.layout.database)
    mended = rebuilding.mend(rig.layout, now=1.0)
    assert mended is not None
    states = {job.file: job.state for job in rig.jobs()}
    assert states == {
        "job-1.jsonl": JobState.SUCCEEDED, "failed.jsonl": JobState.FAILED, "middle.jsonl": JobState.QUEUED,
        "job-4.jsonl": JobState.CANCELLED,
    }  # fmt: skip
    assert len(mended.notes) == 1
    assert "a dataset of 4 rows is job 4 and not queued: nobody can tell" in mended.notes[0]


def test_with_checkpoints_gone_too_nothing_starts_from_the_base(rig: Rig) -> None:
    shutil.rmtree(rig.layout.model)
    rig.layout.model.mkdir()
    rig.layout.config_lock.unlink(missing_ok=True)
    remove(rig.layout.database)
    assert rebuilding.mend(rig.layout, now=1.0) is not None
    begun = len(rig.attempts())
    rig.withdraw("paused")
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "waiting", timeout=LONG)
    assert "checkpoint" in context.standing.reason.lower()
    assert len(rig.attempts()) == begun


def test_while_a_trainer_works_it_is_asked_to_leave_and_nothing_is_changed(rig: Rig) -> None:
    remove(rig.layout.database)
    lock = files.Lock(rig.layout.model_lock)
    assert lock.acquire(holder={"pid": os.getpid(), "attempt": "000003-01"})
    with pytest.raises(BusyError, match="a trainer is still at work"):
        rebuilding.mend(rig.layout, now=1.0)
    lock.release()
    assert not rig.layout.database.exists()
    assert json.loads((rig.layout.attempt("000003-01") / "notice.json").read_text())["wish"] == "save_and_leave"


def test_killed_after_its_first_move_the_database_is_still_taken_for_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file alone nobody sees that what stood in its log is gone: it is an older state of the work."""
    Path(f"{rig.layout.database}-wal").mkdir()
    really = files.rename

    def kill(source: Path, target: Path) -> None:
        really(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "rename", kill)
        with pytest.raises(KeyboardInterrupt):
            rebuilding.mend(rig.layout, now=1.0)
    assert rebuilding.mend(rig.layout, now=1.0) is not None


@pytest.mark.crash
def test_killed_at_any_rename_it_is_simply_done_again(rig: Rig, expected: dict[str, Any]) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    rig.layout.database.write_bytes(b"torn" * 100)
    Path(f"{rig.layout.database}-wal").write_bytes(b"torn")
    code = (
        "import sys; from pathlib import Path; from overnight import rebuilding; from overnight.disk.layout import"
        " Layout; rebuilding.mend(Layout(Path(sys.argv[1])), now=1.0)"
    )
    kills = 0
    for call in ("rename", "fsync"):
        for count in (1, 2, 3):
            done = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={count}",
                 sys.executable, "-B", "-c", code, str(rig.layout.root)],
                capture_output=True, check=False,
            )  # fmt: skip
            kills += done.returncode != 0
            if call == "rename":
                shutil.rmtree(rig.layout.state / "none", ignore_errors=True)
                remove(rig.layout.database)
                rig.layout.database.write_bytes(b"torn" * 100)
                Path(f"{rig.layout.database}-wal").write_bytes(b"torn")
    assert kills >= 3
    rebuilding.mend(rig.layout, now=1.0)
    finish(rig)
    assert rig.model() == expected


@pytest.mark.slow
def test_a_database_deleted_under_the_daemon_is_made_anew_by_up_and_the_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "workspace", monkeypatch).make(checkpoint__every_steps=5)
    try:
        rig.simulate(step_s=0.2)
        rig.drop("one.jsonl", rows=400)
        loop = rig.start_loop()
        rig.wait(lambda: rig.step() >= 6, timeout=LONG)
        remove(rig.layout.database)
        assert loop.wait(LONG) == 73
        rig.wait(lambda: rig.trainer_pid() is None, timeout=LONG)
        reached = rig.step()
        rig.simulate(step_s=0)
        done = subprocess.run(
            [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), "up", "--until-idle", "--no-web"],
            capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL,
            env={**os.environ, "OVERNIGHT_SIMULATED": rig.options},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "state.db is missing: it was made anew from what lies here, 1 jobs" in done.stderr
        assert rig.attempts()[-1].first_step == reached >= 6
        assert len(rig.model()["ledger"]) == len(set(rig.model()["ledger"])) == 400
    finally:
        rig.end()
