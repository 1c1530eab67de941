"""What the kernel knows of a trainer, noted while it lives: when it is gone, status/deaths.py compares."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from overnight.daemon.context import Moment
from overnight.disk import attempts, endings
from overnight.disk.endings import Ground
from overnight.launchers import kernel


def note_launch(folder: Path, now: Moment) -> None:
    """Note, before a trainer is let go, what the kernel has counted; it begins in the memory group of the loop."""
    endings.write_ground(folder, _ground(kernel.memory_group("self"), None, now))


def note_life(folder: Path, pid: int | None, now: Moment) -> None:
    """Note, now and then while a trainer lives, what it has grown to, and a group that it was moved to."""
    if pid is None:
        return
    before, group = endings.read_ground(folder), kernel.memory_group(pid)
    peak = kernel.peak_bytes(pid)
    if before is not None and group is not None and before.group == str(group.folder) and before.pid == pid:
        grown = max(filter(None, (peak, before.peak_bytes)), default=None)
        if grown is not None and grown > 1.02 * (before.peak_bytes or 0):
            endings.write_ground(folder, dataclasses.replace(before, peak_bytes=grown))
        return
    fresh = _ground(group, pid, now)
    if before is not None and before.group == fresh.group and before.boot_id == fresh.boot_id:
        fresh = dataclasses.replace(
            fresh, oom_kills=before.oom_kills, machine_oom_kills=before.machine_oom_kills, noted_at=before.noted_at
        )
    endings.write_ground(folder, dataclasses.replace(fresh, peak_bytes=peak, limits=kernel.limits_of(pid)))


def _ground(group: kernel.MemoryGroup | None, pid: int | None, now: Moment) -> Ground:
    return Ground(
        pid=pid,
        group=str(group.folder) if group is not None else None,
        oom_kills=group.oom_kills() if group is not None else None,
        machine_oom_kills=kernel.machine_oom_kills(),
        peak_bytes=None,
        limits={},
        boot_id=attempts.boot_id(),
        noted_at=now.unix,
    )
