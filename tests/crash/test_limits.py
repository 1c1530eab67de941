"""Out of processes, of file handles, of memory: told by name, waited out, never charged, nothing leaks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_group import MemoryGroup
from overnight.domain.attempt import Outcome
from overnight.domain.job import JobState
from simulated_rig import Rig

pytestmark = pytest.mark.crash

NOBODY = 61_234
"""A user of whom nobody else's processes are."""


@pytest.fixture
def place_of_nobody() -> Iterator[Path]:
    """Give a folder that belongs to another user; the folders of pytest are closed to others."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("prlimit") is None:
        pytest.skip("needs the right to become another user")
    folder = Path(tempfile.mkdtemp(prefix="overnight-test-"))
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


def python_of_nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a Python that another user may run, and let it find what ours finds; ours may lie in a closed home."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for program in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        words = "import os, sys, sqlite3, overnight.daemon.loop; sys.exit(not os.access(sys.executable, os.X_OK))"
        probe = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", program, "-c", words]
        if shutil.which(program) and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return program
    pytest.skip("needs a Python that other users may run")


def give(folder: Path, user: int) -> None:
    """Give everything below a folder to a user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def handles(pid: int) -> set[str]:
    """Return what a process has open."""
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}


def test_a_user_who_may_start_no_more_processes_is_told_so_and_work_goes_on_when_he_may(
    place_of_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python_of_nobody(monkeypatch))
    rig = Rig(place_of_nobody / "workspace").make(files=1)
    give(rig.layout.root, NOBODY)
    try:
        as_nobody = ["prlimit", "--nproc=1:100", "setpriv", f"--reuid={NOBODY}", "--clear-groups"]
        loop = rig.start_loop(wrapper=as_nobody)
        rig.wait(
            lambda: any("new thread" in event["message"] or "EAGAIN" in event["message"] for event in rig.events())
        )
        assert loop.poll() is None
        assert rig.jobs()[0].charged == 0
        subprocess.run([*as_nobody[2:], "prlimit", f"--pid={loop.pid}", "--nproc=100:100"], check=True)
        rig.wait(rig.is_done)
        assert rig.jobs()[0].charged == 0
        assert rig.attempts()[-1].outcome is Outcome.COMPLETED
    finally:
        rig.end()


def test_a_loop_without_a_handle_left_says_so_and_goes_on_when_it_has_some(rig: Rig) -> None:
    rig.make()
    loop = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == loop.pid and rig.layout.daemon_state.exists())
    most = len(handles(loop.pid)) + 2
    resource.prlimit(loop.pid, resource.RLIMIT_NOFILE, (most, 4096))
    rig.submit("a.jsonl")
    rig.wait(lambda: "Too many open files" in rig.log(), what="a word about handles")
    assert loop.poll() is None
    resource.prlimit(loop.pid, resource.RLIMIT_NOFILE, (1024, 4096))
    rig.wait(rig.is_done)
    assert rig.jobs()[0].charged == 0


def test_many_files_later_the_loop_holds_no_more_handles_than_before(rig: Rig) -> None:
    rig.simulate(step_s=0)
    rig.make()
    loop = rig.start_loop()
    counts = []
    for first, last in ((0, 2), (2, 12)):
        for number in range(first, last):
            rig.drop(f"f{number}.jsonl", rows=1)
        rig.wait(
            lambda many=last: len(rig.jobs()) == many and rig.is_done() and all(job.filed for job in rig.jobs()),
            timeout=90,
        )
        rig.wait(lambda: not any("attempts/" in name for name in handles(loop.pid) if "trainer.log" not in name))
        counts.append(handles(loop.pid))
    assert len(counts[1]) <= len(counts[0]) + 2, counts[1] - counts[0]


def test_a_file_larger_than_memory_is_judged_and_stored(rig: Rig, group: MemoryGroup) -> None:
    group.limit(80 << 20)
    rig.make()
    rig.wish("stopped", reason="only the intake is looked at")
    row = json.dumps({"text": "word " * 13_000}) + "\n"
    with open(rig.layout.inbox / ".arriving", "w") as file:
        for number in range(2000):
            file.write(row.replace("word", f"w{number:03d}", 1))
    size = os.path.getsize(rig.layout.inbox / ".arriving")
    assert size > 1.2 * (80 << 20)
    (rig.layout.inbox / ".arriving").rename(rig.layout.inbox / "big.jsonl")
    loop = rig.start_loop(wrapper=group.entry())
    jobs: Any = rig.wait(rig.jobs, timeout=120)
    assert (jobs[0].state, jobs[0].examples) == (JobState.QUEUED, 2000)
    assert group.kills() == 0
    assert loop.poll() is None
