"""What the kernel knows of a trainer: noted while it lives, gathered when it is gone."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from overnight.daemon.context import Moment, Watched
from overnight.disk import attempts, endings, space
from overnight.disk.endings import Ground
from overnight.domain.attempt import Attempt
from overnight.domain.facts import Facts
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


def gather(folder: Path, workspace: Path, attempt: Attempt, watched: Watched, now: Moment) -> Facts:
    """Return what is known of a trainer that is gone."""
    heartbeat = watched.heartbeat or attempts.read_heartbeat(folder)
    ground = endings.read_ground(folder)
    group = kernel.group_at(Path(ground.group)) if ground is not None and ground.group is not None else None
    pid = ground.pid if ground is not None and ground.pid is not None else heartbeat.pid if heartbeat else None
    boot = ground.boot_id if ground is not None else heartbeat.boot_id if heartbeat is not None else ""
    is_other_boot = boot not in ("", attempts.boot_id())
    began_s = time.monotonic() - max(0.0, now.unix - attempt.started_at)
    disk = space.space_of(workspace)
    is_known = ground is not None and not is_other_boot
    return Facts(
        oom_kills=_since(group.oom_kills() if group else None, ground.oom_kills if ground and is_known else None),
        machine_oom_kills=_since(kernel.machine_oom_kills(), ground.machine_oom_kills if ground and is_known else None),
        kernel_log=tuple(kernel.kernel_log_of(pid, since_s=began_s)) if pid is not None and not is_other_boot else (),
        peak_bytes=ground.peak_bytes if ground is not None else None,
        memory_limit_bytes=group.limit_bytes() if group is not None else None,
        memory_available_bytes=kernel.available_bytes(group),
        free_bytes=disk.free_bytes,
        free_inodes=disk.free_inodes,
        is_read_only=disk.is_read_only,
        limits=ground.limits if ground is not None else {},
        phase=heartbeat.phase if heartbeat is not None else None,
        total=heartbeat.total if heartbeat is not None else None,
        heard_at=heartbeat.written_at if heartbeat is not None else None,
        booted_at=now.unix - now.boot if is_other_boot else None,
        was_unwatched=watched.touched_at == float("-inf"),
    )


def time_of_end(folder: Path, attempt: Attempt, facts: Facts, *, is_fresh: bool, now: Moment) -> float:
    """Return when a trainer ended: now where it was seen to end, else its last sign of life."""
    if is_fresh:
        return now.unix
    signs = [attempt.started_at, *([facts.heard_at] if facts.heard_at is not None else [])]
    for name in ("trainer.log", "metrics.jsonl"):
        try:
            signs.append(os.stat(folder / name).st_mtime)
        except OSError:
            continue
    latest = min(now.unix, facts.booted_at) if facts.booted_at is not None else now.unix
    return min(latest, max(signs))


def _since(now: int | None, before: int | None) -> int | None:
    return max(0, now - before) if now is not None and before is not None else None
