"""What the kernel knows of a process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_group import memory_group
from overnight.launchers import kernel

EAT = "data = []\nwhile True: data.append(bytearray(b'x' * (1 << 20)))"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    child = subprocess.Popen(
        [sys.executable, "-c", "import time; x = b'x' * (40 << 20); time.sleep(60)"], preexec_fn=limit
    )
    yield child
    child.kill()
    child.wait()


def test_memory_and_limits_of_a_living_process_are_read(sleeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while (kernel.peak_bytes(sleeper.pid) or 0) < 40 << 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (kernel.peak_bytes(sleeper.pid) or 0) >= 40 << 20
    assert kernel.limits_of(sleeper.pid)["file_size"] == 1 << 20


def test_of_a_process_that_is_gone_nothing_is_known_and_nothing_fails() -> None:
    gone = 2**22 + 5
    assert kernel.peak_bytes(gone) is None
    assert kernel.limits_of(gone) == {}
    assert kernel.memory_group(gone) is None
    assert kernel.kernel_log_of(gone, since_s=0) == []


def test_a_kill_for_want_of_memory_is_counted_and_logged() -> None:
    with memory_group() as made:
        made.limit(64 << 20)
        group = kernel.group_at(made.folder)
        before = group.oom_kills()
        began = time.monotonic()
        child = subprocess.Popen(made.entry(sys.executable, "-c", EAT))
        assert child.wait(60) == -9
        assert before is not None
        assert group.oom_kills() == before + 1
        assert group.limit_bytes() == 64 << 20
    if os.access(kernel.KMSG, os.R_OK):
        lines = kernel.kernel_log_of(child.pid, since_s=began)
        assert any("Killed process" in line for line in lines) or not _may_read_kmsg(), lines


def _may_read_kmsg() -> bool:
    try:
        descriptor = os.open(kernel.KMSG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    os.close(descriptor)
    return True


def test_a_kernel_log_that_is_a_pipe_nobody_writes_blocks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "kmsg")
    monkeypatch.setattr(kernel, "KMSG", tmp_path / "kmsg")
    assert kernel.kernel_log_of(os.getpid(), since_s=0) == []


@pytest.mark.parametrize(
    ("cgroup", "mount", "expected"),
    [
        ("4:memory:/docker/a/b", "35 31 0:32 /docker/a {}/mem rw - cgroup cgroup rw,memory", "mem/b"),
        ("4:memory:/", "35 31 0:32 /docker/a {}/mem rw - cgroup cgroup rw,memory", "mem"),
        ("4:memory:/elsewhere", "35 31 0:32 /docker/a {}/mem rw - cgroup cgroup rw,memory", "mem"),
        ("0::/unit", "35 31 0:32 / {}/mem rw - cgroup2 cgroup2 rw", "mem/unit"),
    ],
)
def test_the_memory_group_is_found_in_both_versions_and_inside_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, mount: str, expected: str
) -> None:
    for name in ("mem", "mem/b", "mem/unit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    proc = tmp_path / "proc"
    for name in ("self", "7"):
        (proc / name).mkdir(parents=True)
    (proc / "7" / "cgroup").write_text(f"1:cpu:/x\n{cgroup}\n")
    (proc / "self" / "mountinfo").write_text(mount.format(tmp_path) + "\n")
    monkeypatch.setattr(kernel, "PROC", proc)
    group = kernel.memory_group(7)
    assert group is not None
    assert group.folder == tmp_path / expected
    assert group.oom_kills() == 2
