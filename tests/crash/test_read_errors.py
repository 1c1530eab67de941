"""A disk that refuses to read a checkpoint: what may pass is waited for, what does not costs some steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import disk_rig
from checkpoint_rig import commit_steps, names
from overnight.database.connection import connect_readonly
from overnight.disk import checkpoints
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Verdict
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


def command(layout: Layout, fault: str, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command for which reading one file fails."""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-P", str(path), "-e", "trace=read", "-e", f"inject={fault}"]
    overnight = [sys.executable, "-m", "overnight", "-C", str(layout.root), *words]
    return subprocess.run([*strace, *overnight], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(180)
def test_a_newest_checkpoint_that_cannot_be_read_for_a_while_is_waited_for_and_resumed(
    paused: tuple[Rig, int], expected: dict[str, Any]
) -> None:
    rig, daemon = paused
    newest = newest_of(rig.layout)
    with disk_rig.broken(daemon, EIO, path=newest / "weights.bin"):
        rig.withdraw("paused")
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
    rig, daemon = paused
    newest = newest_of(rig.layout)
    steps = sorted(int(name.partition("-")[2]) for name in names(rig.layout))
    before = {path.name: path.read_bytes() for path in newest.iterdir()}
    with disk_rig.broken(daemon, EIO, path=newest / "weights.bin"):
        rig.withdraw("paused")
        rig.wait(lambda: rig.events("checkpoint.set_aside"), timeout=120)
    rig.wait(rig.is_done)
    assert rig.model() == expected
    assert rig.attempts()[-1].first_step == steps[-2]
    (aside,) = rig.layout.trash.iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before


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
