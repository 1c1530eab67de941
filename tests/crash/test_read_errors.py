"""A disk that refuses to read a checkpoint: what may pass is waited for, what does not costs some steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import disk_rig
from checkpoint_rig import commit_steps, names
from overnight.daemon import dispatch
from overnight.database.connection import connect_readonly
from overnight.disk import checkpoints
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Verdict
from overnight.domain.job import JobState
from overnight.status import snapshot
from simulated_rig import Rig
from sweep_rig import needs_strace
from version_rig import VersionRig

pytestmark = [pytest.mark.crash, needs_strace]

EIO = "read:error=EIO"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace", patch).make(files=1, rows=96)
        rig.simulate(step_s=0)
        rig.tick_until(rig.context(), rig.is_done)
        rig.end()
        return rig.model()


@pytest.fixture
def paused(rig: Rig) -> Iterator[tuple[Rig, int]]:
    """A job that stands still in its middle, and the real daemon beside it, with its pid."""
    rig.make(files=1, rows=96)
    rig.simulate(step_s=0.05)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 12)
    rig.wish("paused")
    rig.wait(lambda: reason(rig)[0] == "paused")
    yield rig, loop.pid
    rig.end()


def reason(rig: Rig) -> tuple[str, str]:
    """The state and its reason, as ``overnight status`` tells them."""
    with closing(connect_readonly(rig.layout.database)) as connection:
        shot = snapshot(rig.layout, connection, now=0.0)
    return shot.standing.state, shot.standing.reason


def newest_of(layout: Layout) -> Path:
    return layout.checkpoint(max(int(name.partition("-")[2]) for name in names(layout)))


def overnight(layout: Layout, *words: str) -> list[str]:
    return [sys.executable, "-m", "overnight", "-C", str(layout.root), *words]


def command(layout: Layout, fault: str, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command for which reading one file fails."""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(path), "-e", "trace=read", "-e", f"inject={fault}"]
    return subprocess.run(
        [*strace, *overnight(layout, *words)], capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def going_on_unread(paused: tuple[Rig, int], newest: Path) -> Iterator[None]:
    """Work is to go on, and the daemon's disk refuses to read the weights of the newest checkpoint."""
    rig, daemon = paused
    with disk_rig.broken(daemon, EIO, path=newest / "weights.bin"):
        rig.withdraw("paused")
        yield


@pytest.mark.timeout(180)
def test_a_newest_checkpoint_that_cannot_be_read_for_a_while_is_waited_for_and_resumed(
    paused: tuple[Rig, int], expected: dict[str, Any]
) -> None:
    rig, newest = paused[0], newest_of(paused[0].layout)
    with going_on_unread(paused, newest):
        told = f"{newest.name} is tried again before an older one is taken: "
        told += "weights.bin cannot be read: Input/output error"
        rig.wait(lambda: reason(rig) == ("waiting", told))
    rig.wait(rig.is_done)
    assert rig.model() == expected
    assert rig.attempts()[-1].first_step == checkpoints.step_of(newest.name)
    assert rig.events("checkpoint.set_aside") == []
    assert list(rig.layout.trash.iterdir()) == []
    (job,) = rig.jobs()
    assert job.charged == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_one_that_is_never_read_is_set_aside_and_the_one_before_it_leads_to_the_same_bytes(
    paused: tuple[Rig, int], expected: dict[str, Any]
) -> None:
    rig, newest = paused[0], newest_of(paused[0].layout)
    steps = sorted(int(name.partition("-")[2]) for name in names(rig.layout))
    before = {path.name: path.read_bytes() for path in newest.iterdir()}
    with going_on_unread(paused, newest):
        rig.wait(lambda: rig.events("checkpoint.set_aside"), timeout=120)
    rig.wait(rig.is_done)
    assert rig.model() == expected
    assert rig.attempts()[-1].first_step == steps[-2]
    (aside,) = rig.layout.trash.iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_after_a_pause_a_checkpoint_that_cannot_be_read_gets_its_whole_time_again(
    rig: Rig, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RECHECK_S", 0.2)
    monkeypatch.setattr(dispatch, "UNREADABLE_S", 12.0)
    rig.make(files=1, rows=96)
    rig.simulate(step_s=0.05)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 12)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    newest = newest_of(rig.layout)
    with disk_rig.broken(os.getpid(), EIO, path=newest / "weights.bin"):
        rig.withdraw("paused")
        rig.tick_until(context, lambda: "is tried again" in context.standing.reason)
        rig.wish("paused")
        rig.tick_until(context, lambda: context.standing.state == "paused")
        go_on_at = time.monotonic() + dispatch.UNREADABLE_S
        rig.tick_until(context, lambda: time.monotonic() > go_on_at)
        rig.withdraw("paused")
        rig.tick_until(context, lambda: "is tried again" in context.standing.reason)
    rig.tick_until(context, rig.is_done)
    assert rig.model() == expected
    assert rig.attempts()[-1].first_step == checkpoints.step_of(newest.name)
    assert rig.events("checkpoint.set_aside") == []


def test_cleanup_neither_removes_nor_sets_aside_what_it_cannot_read(rig: Rig) -> None:
    layout = rig.make().layout
    commit_steps(layout, 5, 10, 15)
    done = command(layout, EIO, layout.checkpoint(10) / "weights", "cleanup", "--keep", "3", "--yes")
    assert done.returncode == 0, done.stderr
    assert set(names(layout)) == {"checkpoint-5", "checkpoint-10", "checkpoint-15"}
    assert list(layout.trash.iterdir()) == []
    assert checkpoints.verify(layout.checkpoint(10)).verdict is Verdict.VERIFIED


def test_no_version_is_made_of_an_older_checkpoint_while_the_newest_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = VersionRig(tmp_path / "w", monkeypatch)
    try:
        rig.make()
        rig.simulate(step_s=0.0)
        rig.train("a.jsonl")
        newest = newest_of(rig.layout)
        refused = command(rig.layout, EIO, newest / "weights.bin", "consolidate", "-m", "x")
        assert refused.returncode == 1, refused.stderr
        assert f"{newest.name} cannot be read now; checkpoint-5 is not published in its place" in refused.stderr
        assert "weights.bin cannot be read" in refused.stderr
        assert list(rig.layout.versions.iterdir()) == []
        assert rig.consolidate().id == "v001"
    finally:
        rig.end()


def test_a_job_that_was_kept_aside_is_accepted_when_the_disk_answers_again(rig: Rig) -> None:
    rig.make(files=2, rows=20, evaluation__holdout=0.2, evaluation__gate="block")
    rig.simulate(harm=2)
    rig.start_loop()
    rig.wait(lambda: [job.state for job in rig.jobs()] == [JobState.SUCCEEDED, JobState.FAILED])
    rig.end()
    (kept,) = rig.layout.candidates.glob("*/checkpoint-10")
    before = {path: path.read_bytes() for path in kept.iterdir()}
    refused = command(rig.layout, EIO, kept / "weights.bin", "accept", "2")
    assert refused.returncode == 1, refused.stderr
    assert "Job 2 cannot be accepted: its checkpoint cannot be read now" in refused.stderr
    assert "overnight accept 2 again when the disk answers" in refused.stderr
    assert {path: path.read_bytes() for path in kept.iterdir()} == before
    accepted = subprocess.run(overnight(rig.layout, "accept", "2"), capture_output=True, timeout=120, check=False)
    assert accepted.returncode == 0, accepted.stderr
    assert checkpoints.verify(rig.layout.checkpoint(10)).verdict is Verdict.VERIFIED
