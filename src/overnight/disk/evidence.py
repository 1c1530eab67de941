"""The evidence of a hang, in the attempt's own folder: what was judged, what the kernel said, where the threads stood.

::

    ATTEMPT/hang.json      phase, limit and where it comes from, for how long nothing moved, the last heartbeat
    ATTEMPT/process.json   state, memory, open files, limits, children, and each thread's place in the kernel
    ATTEMPT/stacks.txt     Python and native stacks of all threads
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overnight.disk import files

SCHEMA = 1
HANG, PROCESS, STACKS = "hang.json", "process.json", "stacks.txt"
NAMES = (HANG, PROCESS, STACKS)


def write_hang(folder: Path, hang: dict[str, Any]) -> None:
    """Write down what was judged. Raises DiskError."""
    files.write_json_atomically(folder / HANG, {"schema": SCHEMA, **hang})


def write_process(folder: Path, facts: dict[str, Any]) -> None:
    """Write down what the kernel says. Raises DiskError."""
    files.write_json_atomically(folder / PROCESS, {"schema": SCHEMA, **facts})


def write_stacks(folder: Path, text: str) -> None:
    """Write down where the threads stand. Raises DiskError."""
    files.write_atomically(folder / STACKS, text.encode("utf-8", "backslashreplace"))


def read_hang(folder: Path) -> dict[str, Any] | None:
    """Return what was judged, or None where nothing was or it cannot be read."""
    try:
        value = files.read_json(folder / HANG)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
