"""A memory cgroup with a limit; tests that need one skip where it cannot be made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.launchers import kernel


@contextmanager
def memory_limited(limit_bytes: int) -> Iterator[Path]:
    """Yield the folder of a new memory cgroup with a limit; its processes must be gone at the end."""
    group = kernel.memory_group("self")
    if group is None:
        pytest.skip("no memory cgroup is to be seen here")
    folder = group.top / f"overnight-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
        name = "memory.max" if (folder / "memory.max").exists() else "memory.limit_in_bytes"
        (folder / name).write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)
