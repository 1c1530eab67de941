"""Whatever a disk does: the old checkpoint stays, the run waits at the border of its save, says so, and goes on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import disk_rig
from overnight.database.connection import connect_readonly
from overnight.disk import attempts, checkpoints, files, space, views
from overnight.domain.attempt import Outcome
from overnight.domain.checkpoint import Verdict
from overnight.domain.job import JobState
from overnight.status import Snapshot, snapshot
from overnight.trainer.faults import RELEASE
from overnight.trainer.wishes import unwatched_s
from simulated_rig import Rig, write_rows

pytestmark = pytest.mark.crash

PATIENT_S = 90.0
STEP_OF_GATE = 7
"""Between the saves of the steps 5 and 10."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disk_rig.mounted(tmp_path / "disk", "size=16m,nr_inodes=600") as folder:
        yield folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run leaves to which nothing happens."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace", patch).make(files=1)
        rig.tick_until(rig.context(), rig.is_done, timeout=PATIENT_S)
        expected = rig.model()
        rig.end()
    return expected


class Run:
    """One run that stands between two saves until it is let go on."""

    def __init__(self, root: Path, gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(RELEASE, str(gate))
        self.gate = gate
        self.rig = Rig(root).make(files=1)
        self.rig.simulate(fault=f"held@{STEP_OF_GATE}")

    def up_to_the_gate(self) -> Run:
        """Start the daemon, and wait until the trainer has saved once and stands."""
        self.loop = self.rig.start_loop()
        self.wait(lambda: self.rig.step() >= STEP_OF_GATE)
        pid = self.rig.trainer_pid()
        assert pid is not None
        self.trainer = pid
        return self

    def go_on(self) -> None:
        self.gate.touch()

    def wait(self, condition: Callable[[], Any]) -> Any:
        return self.rig.wait(condition, timeout=PATIENT_S)

    def look(self) -> Snapshot:
        """Look as ``overnight status`` does."""
        with contextlib.closing(connect_readonly(self.rig.layout.database)) as connection:
            return snapshot(self.rig.layout, connection, now=time.time())

    def waits(self) -> str:
        """Return what the trainer waits for, as it is shown."""
        shot = self.look()
        is_so = shot.state == "waiting" and "waiting for the disk to take a checkpoint" in shot.standing.reason
        return shot.standing.reason if is_so else ""

    def steps(self) -> list[int]:
        return [report.step for report in checkpoints.scan(self.rig.layout.model, verify_content=True)]

    def is_well(self, expected: dict[str, Any]) -> None:
        """Wait for the end, and see that it cost nothing but time: one attempt, no try, the same bytes."""
        self.wait(self.rig.is_done)
        assert self.rig.model() == expected
        (job,) = self.rig.jobs()
        assert (job.charged, job.attempts) == (0, 1)
        assert [attempt.outcome for attempt in self.rig.attempts()] == [Outcome.COMPLETED]
        assert self.loop.poll() is None


@pytest.fixture
def run(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    run = Run(disk / "workspace", tmp_path / "gate", monkeypatch)
    yield run
    run.rig.end()


def test_full_before_a_save_it_waits_at_the_border_and_goes_on_with_the_same_bytes(
    run: Run, disk: Path, undisturbed: dict[str, Any]
) -> None:
    run.up_to_the_gate()
    filler = disk_rig.fill(disk)
    run.go_on()
    assert "the next save needs" in run.wait(run.waits)
    assert run.look().step == 10, "told in memory, the disk takes no heartbeat"
    assert run.steps() == [5]
    filler.unlink()
    run.is_well(undisturbed)
    told = run.rig.events("disk.goes_on")
    assert len(told) == 1
    assert "waiting for the disk" in told[0]["message"]


def test_out_of_inodes_with_bytes_free_it_is_named_and_waited_for(
    run: Run, disk: Path, undisturbed: dict[str, Any]
) -> None:
    run.up_to_the_gate()
    many = disk_rig.take_inodes(disk)
    assert (space.space_of(disk).free_bytes or 0) > 8 << 20
    run.go_on()
    assert "out of inodes" in run.wait(run.waits)
    run.wait(lambda: run.rig.events("disk.waiting"))
    assert run.steps() == [5]
    shutil.rmtree(many)
    run.is_well(undisturbed)


def test_read_only_before_a_save_it_is_said_by_status_and_waited_for(
    run: Run, disk: Path, undisturbed: dict[str, Any]
) -> None:
    run.up_to_the_gate()
    with disk_rig.read_only(disk):
        run.go_on()
        assert "read-only" in run.wait(run.waits)
        assert run.steps() == [5]
    run.is_well(undisturbed)


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ("fsync:error=EIO", "input/output error"),
        ("write:error=ENOSPC", "the disk is full"),
        ("write:error=EDQUOT", "quota"),
        ("rename:error=EIO", "input/output error"),
    ],
)
def test_a_write_refused_in_the_middle_of_a_save_is_tried_again_in_new_files(
    run: Run, broken: str, word: str, undisturbed: dict[str, Any]
) -> None:
    run.up_to_the_gate()
    with disk_rig.broken(run.trainer, broken):
        run.go_on()
        assert word in run.wait(run.waits)
        assert run.steps() == [5]
    run.is_well(undisturbed)


def test_a_limit_on_file_sizes_is_named_and_waited_for(run: Run, undisturbed: dict[str, Any]) -> None:
    run.up_to_the_gate()
    limit = ["prlimit", f"--pid={run.trainer}"]
    if subprocess.run([*limit, "--fsize=500:unlimited"], check=False).returncode:
        pytest.skip("needs prlimit")
    run.go_on()
    assert "file size limit" in run.wait(run.waits)
    assert run.steps() == [5]
    subprocess.run([*limit, "--fsize=unlimited:unlimited"], check=True)
    run.is_well(undisturbed)


def test_a_save_that_will_not_fit_is_warned_of_before_and_only_surplus_and_trash_give_way(
    run: Run, disk: Path, undisturbed: dict[str, Any]
) -> None:
    """Given room for one and a half saves of 2 MB, beside 2.5 MB of trash; the next one fits, and the one after not."""
    run.rig.simulate(fault=f"held@{STEP_OF_GATE}", size_mb=2)
    run.up_to_the_gate()
    resting = run.rig.layout.trash / "checkpoint-1.00000001"
    resting.mkdir()
    (resting / "weights.bin").write_bytes(bytes(2_500_000))
    filler = disk_rig.fill(disk, leave=4 << 20)
    run.wait(lambda: run.rig.events("disk.low"))
    assert "room for one more save only" in run.rig.events("disk.low")[0]["message"]
    assert "checkpoint of step 5" in run.rig.events("disk.low")[0]["message"]
    assert resting.exists(), "the next save fits"
    run.go_on()
    run.wait(lambda: run.rig.events("disk.waiting"))
    assert not run.rig.events("checkpoint.removed"), "the newest five are no surplus"
    run.wait(lambda: run.rig.events("trash.removed"))
    run.wait(lambda: 15 in run.steps())
    run.wait(run.waits)
    assert run.steps() == [15, 10, 5]
    run.rig.set(checkpoint__keep=1)
    run.is_well(undisturbed)
    filler.unlink()
    removed = {event["data"]["step"] for event in run.rig.events("checkpoint.removed")}
    assert {5, 10} <= removed
    assert run.rig.events("disk.short")


@pytest.mark.parametrize("fault", ["full", "inodes", "read-only"])
def test_before_a_job_starts_it_waits_says_so_and_charges_nothing(
    run: Run, disk: Path, fault: str, undisturbed: dict[str, Any]
) -> None:
    """Given a job that waits for another trainer, when the disk takes nothing any more, then it waits for that."""
    other = files.Lock(run.rig.layout.model_lock)
    assert other.acquire(holder={"attempt": "of somebody else"})
    run.gate.touch()
    run.loop = run.rig.start_loop()
    run.wait(lambda: "waiting until it has ended" in run.look().standing.reason)
    with contextlib.ExitStack() as lifted:
        if fault == "full":
            lifted.callback(disk_rig.fill(disk).unlink)
        elif fault == "inodes":
            lifted.callback(shutil.rmtree, disk_rig.take_inodes(disk))
        else:
            lifted.enter_context(disk_rig.read_only(disk))
        word = {"full": "the disk is full", "inodes": "out of inodes", "read-only": "read-only"}[fault]
        run.wait(lambda: word in run.look().standing.reason)
        assert run.look().state == "waiting"
        other.release()
        seen = time.monotonic()
        while time.monotonic() < seen + 2:
            assert run.loop.poll() is None
            assert run.rig.jobs()[0].state is JobState.QUEUED
            time.sleep(0.1)
        assert run.rig.jobs()[0].attempts == 0
    run.is_well(undisturbed)


def test_who_is_asked_to_pause_while_a_save_waits_leaves_without_it_and_goes_on_from_the_last_one(
    run: Run, disk: Path, undisturbed: dict[str, Any]
) -> None:
    run.up_to_the_gate()
    filler = disk_rig.fill(disk, leave=256 << 10)
    run.go_on()
    run.wait(run.waits)
    run.rig.wish("paused", reason="paused by the test")
    run.wait(lambda: run.rig.attempts()[0].outcome is not None)
    assert run.rig.attempts()[0].outcome is Outcome.PREEMPTED
    assert run.steps() == [5]
    filler.unlink()
    run.rig.withdraw("paused")
    run.wait(run.rig.is_done)
    assert run.rig.model() == undisturbed
    assert [job.charged for job in run.rig.jobs()] == [0]
    assert len(run.rig.attempts()) == 2


def test_a_slow_disk_makes_saves_late_and_nobody_is_ended_for_it(run: Run, undisturbed: dict[str, Any]) -> None:
    run.up_to_the_gate()
    with disk_rig.broken(run.trainer, "fsync:delay_enter=300000", "write:delay_enter=20000"):
        began = time.monotonic()
        run.go_on()
        run.is_well(undisturbed)
    assert time.monotonic() - began > 3, "three saves of several syncs each"
    assert not run.rig.events("attempt.stuck")


def test_folders_on_disks_of_their_own_work_and_no_file_is_in_two_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    """Given a disk for the model, which fills up, one for what waits, one for what is done, one for what is refused."""
    run = Run(tmp_path / "workspace", tmp_path / "gate", monkeypatch)
    layout = run.rig.layout
    with contextlib.ExitStack() as disks:
        for folder in (layout.model, layout.waiting, layout.done, layout.rejected):
            disks.enter_context(disk_rig.mounted(folder, "size=4m"))
        try:
            run.rig.drop("bad.jsonl", data=b"no row\n")
            run.up_to_the_gate()
            filler = disk_rig.fill(layout.model)
            run.go_on()
            assert "current_model: " in run.wait(run.waits)
            filler.unlink()
            run.wait(lambda: [job.state for job in run.rig.jobs()] == [JobState.SUCCEEDED, JobState.REJECTED])
            assert run.rig.model() == undisturbed
            run.rig.drop("good.jsonl", rows=8)
            run.wait(lambda: (layout.done / "good.jsonl").exists())
            run.wait(lambda: not list(layout.claimed.iterdir()))
            places = (layout.inbox, layout.waiting, layout.processing, layout.done, layout.failed, layout.rejected)
            names = sorted(path.name for place in places for path in place.iterdir())
            assert names == ["bad.jsonl", "bad.jsonl.report.json", "file0.jsonl", "good.jsonl"]
        finally:
            run.rig.end()


def test_an_inbox_on_another_disk_is_told_and_its_files_stay_whole_in_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "workspace").make()
    with disk_rig.mounted(rig.layout.inbox, "size=1m"):
        try:
            rig.drop("a.jsonl")
            rig.start_loop()
            told = rig.wait(lambda: rig.events("inbox.waiting"), timeout=PATIENT_S)
            assert "another file system" in told[0]["message"]
            assert [path.name for path in rig.layout.inbox.iterdir()] == ["a.jsonl"]
            assert rig.jobs() == []
        finally:
            rig.end()


def test_a_move_to_another_disk_that_was_killed_in_between_leaves_one_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "workspace").make(files=1)
    (job,) = rig.jobs()
    data = write_rows("file0.jsonl", 64)
    with disk_rig.mounted(rig.layout.done, "size=1m"):
        (rig.layout.processing / job.file).write_bytes(data)
        (rig.layout.done / job.file).write_bytes(data)  # the copy was made, the source not yet removed
        views.into_done(rig.layout, job, is_first=True)
        assert [path.name for path in rig.layout.done.iterdir()] == [job.file]
        assert list(rig.layout.processing.iterdir()) == []
    rig.end()


def test_shared_memory_and_temporary_folder_are_full_and_home_is_not_there_and_nothing_misses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    run = Run(tmp_path / "workspace", tmp_path / "gate", monkeypatch)
    run.gate.touch()
    monkeypatch.setenv("HOME", "/nonexistent")
    with disk_rig.mounted(tmp_path / "small", "size=1m") as small:
        disk_rig.fill(small)
        monkeypatch.setenv("TMPDIR", str(small))
        words = 'mount --bind "$TMPDIR" /dev/shm && exec "$@"'
        try:
            run.loop = run.rig.start_loop(wrapper=["unshare", "-m", "sh", "-c", words, "sh"])
            run.rig.drop("dropped.jsonl")
            run.wait(lambda: len(run.rig.jobs()) == 2 and run.rig.is_done())
            run.wait(lambda: (run.rig.layout.done / "dropped.jsonl").exists())  # it is moved when the job is done
            assert [job.charged for job in run.rig.jobs()] == [0, 0]
            assert checkpoints.verify(run.rig.layout.checkpoint(16)).verdict is Verdict.VERIFIED
            assert run.rig.model()["ledger"][:64] == undisturbed["ledger"]
        finally:
            run.rig.end()


def test_a_trainer_whose_loop_cannot_write_knows_by_its_beat_that_it_is_looked_after(run: Run, tmp_path: Path) -> None:
    run.up_to_the_gate()
    lock, folder = run.rig.layout.daemon_lock, tmp_path / "attempt"
    folder.mkdir()
    stamp = f"{attempts.boot_time() - 1000:.3f} {attempts.boot_id()}\n"
    (folder / "watched").write_text(stamp)  # the last word that the disk took
    assert unwatched_s(folder, lock, limit_s=90) is None
    run.loop.kill()
    run.loop.wait()
    passed_s = unwatched_s(folder, lock, limit_s=90)
    assert passed_s is not None
    assert passed_s > 900


def test_a_file_system_that_is_unmounted_under_the_run_is_told_and_work_goes_on_by_itself_when_it_is_back(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    """Given a workspace that is the root of a mount, when that goes, then nothing is written below, and it goes on."""
    inner, root = disk / "inner", tmp_path / "workspace"
    inner.mkdir()
    root.mkdir()
    assert disk_rig.mount("--bind", str(inner), str(root))
    run = Run(root, tmp_path / "gate", monkeypatch)
    try:
        run.rig.start_watchdog()
        run.wait(lambda: run.rig.step() >= STEP_OF_GATE)
        daemon, trainer = run.rig.daemon_pid(), run.rig.trainer_pid()
        subprocess.run(["umount", "-l", str(root)], check=True)
        run.go_on()
        run.wait(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in (daemon, trainer)))
        assert list(root.iterdir()) == [], "nothing is written where the workspace is not"
        assert disk_rig.mount("--bind", str(inner), str(root))
        run.wait(run.rig.is_done)
        assert run.rig.model() == undisturbed
        assert [job.charged for job in run.rig.jobs()] == [0]
        assert "no longer mounted" in run.rig.events("daemon.moved")[0]["message"]
    finally:
        run.rig.end()
        subprocess.run(["umount", "-l", str(root)], check=False)
