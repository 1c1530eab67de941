"""A memory control group of a test's own, version 1 or 2; skips where the right to make one is missing."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """One control group."""

    def __init__(self, folder: Path, limit_name: str) -> None:
        self.folder = folder
        self.limit_name = limit_name

    def limit(self, size: int) -> None:
        """Say how much its processes may hold together."""
        (self.folder / self.limit_name).write_text(str(size))

    def take(self, pid: int) -> None:
        """Put a process into it."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def entry(self, *command: str) -> list[str]:
        """Return a command that runs another one inside."""
        return ["/bin/sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh", *command]

    def kills(self) -> int:
        """Return how many of its processes the kernel has killed for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                facts = dict(line.split() for line in (self.folder / name).read_text().splitlines())
                return int(facts.get("oom_kill", 0))
        return 0


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make a group; it is removed afterwards, what is left in it goes back to where it came from."""
    is_old = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    root = ROOT / "memory" if is_old else ROOT
    folder = root / f"overnight-test-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs the right to make a control group")
    made = MemoryGroup(folder, "memory.limit_in_bytes" if is_old else "memory.max")
    if not (folder / made.limit_name).exists():
        folder.rmdir()
        pytest.skip("needs the memory controller for control groups")
    try:
        yield made
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        deadline = time.monotonic() + 10
        while folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            time.sleep(0.05)
