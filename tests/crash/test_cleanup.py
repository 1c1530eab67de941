"""Cleanup killed at any rename, sync or removal: each checkpoint is whole or gone, and the next run completes it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_rig import commit_steps
from overnight.disk import checkpoints
from overnight.domain.checkpoint import Verdict
from simulated_rig import Rig
from sweep_rig import needs_strace, sampled, strace, sweep

pytestmark = [pytest.mark.crash, needs_strace, pytest.mark.timeout(1800)]


@sampled(rename=(2,), fsync=(2,), unlinkat=(1, 3, 6))
def test_cleanup_killed_at_an_arrow_leaves_each_checkpoint_whole_or_gone_and_the_next_run_completes_it(
    tmp_path: Path, call: str, points: tuple[int, ...]
) -> None:
    def strike(point: int) -> bool:
        rig = Rig(tmp_path / "workspace")
        layout = rig.make().layout
        commit_steps(layout, 5, 10, 15, 20)
        (layout.trash / "checkpoint-3.0badcafe").mkdir()
        (layout.trash / "checkpoint-3.0badcafe" / "weights").write_bytes(b"bad")
        rig.set(disk__trash_days=0.0)
        command = [sys.executable, "-m", "overnight", "-C", str(layout.root), "cleanup", "--keep", "2", "--yes"]
        killed = subprocess.run([*strace(call, point), *command], capture_output=True, timeout=60, check=False)
        is_met = killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert is_met or killed.returncode == 0, killed.stderr
        for path in layout.model.glob("checkpoint-*"):
            assert checkpoints.verify(path).verdict is Verdict.VERIFIED, path
        assert {layout.checkpoint(15), layout.checkpoint(20)} <= set(layout.model.iterdir())
        again = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert again.returncode == 0, again.stderr
        assert {path.name for path in layout.model.iterdir()} == {"checkpoint-15", "checkpoint-20"}
        assert list(layout.trash.iterdir()) == []
        shutil.rmtree(layout.root)
        return is_met

    sweep("cleanup", call, points, strike)


def test_a_kill_does_hit_the_removal(rig: Rig) -> None:
    """The injection above is no empty gesture: at its second rename or third removal cleanup is in the middle."""
    layout = rig.make().layout
    commit_steps(layout, 5, 10, 15)
    strace = ["strace", "-o", "/dev/null", "-e", "trace=unlink,unlinkat", "-e", "inject=unlinkat:signal=KILL:when=2"]
    command = [sys.executable, "-m", "overnight", "-C", str(layout.root), "cleanup", "--keep", "1", "--yes"]
    subprocess.run([*strace, *command], capture_output=True, timeout=60, check=False)
    hidden = [path.name for path in layout.model.iterdir() if path.name.startswith(".removing.")]
    assert hidden == [".removing.checkpoint-10"]
    assert not Path(layout.model / "checkpoint-10").exists()
