"""How much memory a process holds, and how much is left where it runs: kernel facts, cheap enough for each second."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from overnight.domain.memory import Room
from overnight.launchers import kernel

PROC = Path("/proc")
FILES = (
    ("memory.max", "memory.current", "inactive_file"),  # control groups of version 2
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # and 1
)


def resident_bytes(pid: int) -> int | None:
    """Return what a process holds in memory, or None where nothing tells."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def room_of(pid: int) -> Room | None:
    """Return the tightest limit on a process: the machine's memory, or that of a control group above it."""
    rooms = [room for room in (_machine(), *_groups_of(pid)) if room is not None]
    return min(rooms, key=lambda room: room.available_bytes, default=None)


def _machine() -> Room | None:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        facts = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
        return Room(total_bytes=facts["MemTotal"], available_bytes=facts["MemAvailable"], where="the machine")
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _groups_of(pid: int) -> Iterator[Room | None]:
    """Yield the limit of each control group that a process is in, up to the root."""
    group = kernel.memory_group(pid)
    for level in group.levels() if group is not None else []:
        for names in FILES:
            yield _group(level, *names)


def _group(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> Room | None:
    """Return the room in one control group; file cache that the kernel takes back counts as free."""
    try:
        limit = int((folder / limit_name).read_text())  # "max" where there is none
        usage = int((folder / usage_name).read_text())
        facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        available = limit - usage + int(facts.get(cache_name, 0))
    except (OSError, ValueError):
        return None
    return Room(total_bytes=limit, available_bytes=max(0, available), where="its control group")
