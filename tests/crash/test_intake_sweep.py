"""The ways in, killed at every rename, removal and sync: what judges claimed files, and ``overnight add``.

Each file is in exactly one place afterwards, with the bytes that it came with, and is one job.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overnight.disk import claims, dataset_files, datasets
from overnight.disk.files import sha256_of
from simulated_rig import Rig, write_rows
from sweep_rig import needs_strace, sampled, strace, sweep

pytestmark = [pytest.mark.crash, needs_strace, pytest.mark.timeout(1800)]

GOOD, BAD = write_rows("good", 6), write_rows("bad", 3) + b"{torn\n"


def end(command: list[str], *, kill: list[str]) -> bool:
    """Run a command that may be killed; return whether it was."""
    done = subprocess.run([*kill, *command], capture_output=True, timeout=120, check=False)
    is_killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert is_killed or done.returncode in (0, 65), done.stderr
    return is_killed


def places(rig: Rig, name: str) -> list[Path]:
    """Return the folders in which a file of that name lies."""
    return [path.parent for path in rig.layout.root.rglob(name) if path.is_file() and not path.is_symlink()]


def check_datasets(rig: Rig) -> None:
    """Check that exactly the datasets of the jobs are stored, and whole."""
    datasets.clean_up(rig.layout.datasets)
    wanted = {job.dataset for job in rig.jobs() if job.dataset is not None}
    assert {path.name for path in rig.layout.datasets.iterdir()} == wanted
    assert all(dataset_files.is_whole(dataset_files.find(rig.layout.datasets, dataset)) for dataset in wanted)


@sampled(rename=(1, 3), fsync=(2, 5), fdatasync=(1,), unlink=(1,), rmdir=(1,))
def test_the_judge_of_claimed_files_killed_at_any_point_judges_each_once_in_the_end(
    tmp_path: Path, call: str, points: tuple[int, ...]
) -> None:
    def strike(point: int) -> bool:
        rig = Rig(tmp_path / "workspace").make()
        for name, data in (("a.jsonl", GOOD), ("b.jsonl", BAD)):
            claims.claim_by_rename(rig.layout, rig.drop(name, data=data), at=time.time())
        judge = [sys.executable, "-m", "overnight.daemon.admission", str(rig.layout.root)]
        is_met = end(judge, kill=strace(call, point))
        for name in ("a.jsonl", "b.jsonl"):
            assert len(places(rig, name)) == 1, "the user's file is in one place at any time"
        assert not end(judge, kill=[])
        assert [(job.file, job.state.value) for job in rig.jobs()] == [("a.jsonl", "queued"), ("b.jsonl", "rejected")]
        assert (places(rig, "a.jsonl"), places(rig, "b.jsonl")) == ([rig.layout.waiting], [rig.layout.rejected])
        assert (rig.layout.waiting / "a.jsonl").read_bytes() == GOOD
        assert (rig.layout.rejected / "b.jsonl").read_bytes() == BAD
        assert json.loads((rig.layout.rejected / "b.jsonl.report.json").read_text())["problems_total"] == 1
        assert os.listdir(rig.layout.claimed) == []
        check_datasets(rig)
        shutil.rmtree(rig.layout.root)
        return is_met

    sweep("the judge of claimed files", call, points, strike)


@sampled(rename=(1, 2), fsync=(1, 4), fdatasync=(1,))
def test_add_killed_at_any_point_is_one_whole_job_or_none_and_the_origin_stays(
    tmp_path: Path, call: str, points: tuple[int, ...]
) -> None:
    origin = tmp_path / "a.jsonl"

    def strike(point: int) -> bool:
        rig = Rig(tmp_path / "workspace").make()
        origin.write_bytes(GOOD)
        add = [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), "add", str(origin)]
        is_met = end(add, kill=strace(call, point, options=["-f"]))  # its shell's process only waits
        judge = [sys.executable, "-m", "overnight.daemon.admission", str(rig.layout.root)]
        assert not end(judge, kill=[])  # what a daemon does at its start
        claims.remove_leftovers(rig.layout)
        jobs = rig.jobs()
        assert len(jobs) <= 1
        assert [job.sha256 for job in jobs] == [sha256_of(origin)] * len(jobs)
        assert places(rig, "a.jsonl") == [rig.layout.waiting] * len(jobs)
        assert is_met or len(jobs) == 1
        assert origin.read_bytes() == GOOD
        assert os.listdir(rig.layout.claimed) == []
        check_datasets(rig)
        shutil.rmtree(rig.layout.root)
        return is_met

    sweep("add", call, points, strike)
