"""A merge that is ended, or whose disk breaks: a last word, and nothing of a version."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

pytest.importorskip("torch")

from merge_rig import end, launch, spec_of, trained
from rig import Rig

from overnight.disk import attempts
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome, Phase

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return trained(tmp_path_factory.mktemp("merge"))


def until_it_merges(folder: Path) -> Heartbeat:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        beat = attempts.read_heartbeat(folder)
        if beat is not None and beat.phase is Phase.MERGING and beat.parts is not None:
            return beat
        time.sleep(0.02)
    raise AssertionError((folder / "trainer.log").read_text()[-3000:])


def test_a_merge_tells_its_parts_and_leaves_at_once_where_it_is_asked_to(rig: Rig, tmp_path: Path) -> None:
    spec = spec_of(rig, "asked")
    process = launch(rig, spec, OVERNIGHT_FAULT="merge:10:held", OVERNIGHT_FAULT_RELEASE=str(tmp_path / "never"))
    try:
        beat = until_it_merges(rig.layout.attempt(spec.attempt))
        assert beat.parts == 21 + 3 * 5
        assert (beat.step, beat.pid) == (spec.step, process.pid)
        process.send_signal(signal.SIGTERM)
        code, report = end(rig, spec, process)
    finally:
        process.kill()
        process.wait()
    assert code == 75
    assert report is not None
    assert (report.outcome, report.problem) == (Outcome.PREEMPTED, None)
    assert "SIGTERM" in report.message
    assert os.listdir(rig.layout.versions) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to break a system call")
def test_a_disk_that_breaks_in_the_middle_of_a_merge_leaves_nothing(rig: Rig) -> None:
    spec = spec_of(rig, "broken")
    strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"]
    code, report = end(rig, spec, launch(rig, spec, *strace))
    assert code == 1
    assert report is not None
    assert report.problem is not None
    assert (report.problem.code, report.failure) == ("eio", FailureKind.DISK_FULL)
    assert "input/output error" in str(report.problem.found)
    assert os.listdir(rig.layout.versions) == []
