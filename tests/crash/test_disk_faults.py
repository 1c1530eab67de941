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
from overnight.disk import checkpoints, space
from overnight.domain.attempt import Outcome
from overnight.status import Snapshot, snapshot
from overnight.trainer.faults import RELEASE
from simulated_rig import Rig

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

    def __init__(self, root: Path, gate: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        monkeypatch.setenv(RELEASE, str(gate))
        self.gate = gate
        self.rig = Rig(root).make(files=1, **changes)
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
