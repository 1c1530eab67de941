"""A full disk: the run waits, says so, goes on by itself when space returns, and ends like the undisturbed one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.domain import pace
from overnight.domain.job import JobState
from simulated_rig import Rig

pytestmark = pytest.mark.crash


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system of our own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take every free byte."""
    path = folder / "filler"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 4096, 512):
        try:
            while True:
                os.write(descriptor, b"x" * size)
        except OSError:
            continue
    os.close(descriptor)
    return path


def test_a_disk_that_fills_up_and_is_freed_again_costs_nothing_but_time(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Rig(tmp_path / "undisturbed", monkeypatch).make(files=2)
    other.tick_until(other.context(), other.is_done)
    expected = other.model()
    other.end()

    rig = Rig(small_disk / "workspace", monkeypatch).make(files=2, watch__grace_s=2.0)
    try:
        rig.simulate(step_s=0.05)
        loop = rig.start_loop()
        rig.wait(lambda: rig.step() >= 7)
        filler = fill(small_disk)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert loop.poll() is None, "the loop lives on a full disk"
            time.sleep(0.1)
        filler.unlink()
        rig.wait(rig.is_done, timeout=60)
        assert rig.model() == expected
        assert [job.charged for job in rig.jobs()] == [0, 0]
    finally:
        rig.end()


def test_a_disk_that_is_full_at_the_start_of_a_job_keeps_it_waiting(small_disk: Path) -> None:
    rig = Rig(small_disk / "workspace").make(files=1, disk__min_free_gb=0.008)
    try:
        filler = fill(small_disk)
        os.truncate(filler, os.path.getsize(filler) - (2 << 20))
        rig.start_loop()
        rig.wait(lambda: any("GB are free" in event["message"] for event in rig.events("dispatch.waiting")))
        assert rig.jobs()[0].state is JobState.QUEUED
        assert rig.jobs()[0].attempts == 0
        filler.unlink()
        rig.wait(rig.is_done)
    finally:
        rig.end()


def test_a_trainer_that_cannot_write_its_heartbeat_is_not_taken_for_stuck(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given limits that are learnt (1 s for a step here), when the disk is full for 4 s, then nobody is ended."""
    rig = Rig(small_disk / "workspace", monkeypatch).make(files=1, rows=400, checkpoint__every_steps=1000)
    try:
        rig.simulate(step_s=0.1)
        context = rig.context()
        context.patiences = pace.scaled(pace.PATIENCE, 0.1)
        rig.tick_until(context, lambda: rig.step() >= 12)
        seen, filler = rig.step(), fill(small_disk)
        deadline = time.monotonic() + 4
        rig.tick_until(context, lambda: time.monotonic() > deadline)
        assert rig.step() <= seen + 3, "no heartbeat could be written"
        assert context.watched is not None
        assert (context.watched.stop, context.watched.suspicion) == (None, None)
        filler.unlink()
        rig.tick_until(context, rig.is_done, timeout=60)
        assert len(rig.attempts()) == 1
    finally:
        rig.end()
