"""What is known of a trainer that is gone: gathered from the kernel, the disk and what was noted while it lived.

Pure reading: the loop uses it when an attempt ends, and whoever looks at the crashes of a workspace whose loop is down.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from signal import SIGKILL

from overnight.disk import attempts, endings, space
from overnight.domain.attempt import Attempt, Heartbeat
from overnight.domain.facts import Facts
from overnight.launchers import kernel
from overnight.launchers.memory import room_of


def gather(
    folder: Path,
    workspace: Path,
    attempt: Attempt,
    heartbeat: Heartbeat | None,
    *,
    was_unwatched: bool,
    signal: int | None = None,
    now: float,
    boot: float,
) -> Facts:
    """Return what is known of a trainer that is gone; ``now`` in unix seconds, ``boot`` in seconds since boot."""
    ground = endings.read_ground(folder)
    group = kernel.group_at(Path(ground.group)) if ground is not None and ground.group is not None else None
    pid = ground.pid if ground is not None and ground.pid is not None else heartbeat.pid if heartbeat else None
    began_in = ground.boot_id if ground is not None else heartbeat.boot_id if heartbeat is not None else ""
    is_other_boot = began_in not in ("", attempts.boot_id())
    began_s = time.monotonic() - max(0.0, now - attempt.started_at)
    disk = space.space_of(workspace)
    then = ground if ground is not None and not is_other_boot else None
    oom_kills = _since(group.oom_kills() if group else None, then.oom_kills if then else None)
    machine_oom_kills = _since(kernel.machine_oom_kills(), then.machine_oom_kills if then else None)
    is_silent = signal == SIGKILL and (oom_kills, machine_oom_kills) == (0, 0)  # somebody's kill: the log has no word
    may_be_logged = pid is not None and not is_other_boot and not is_silent
    return Facts(
        oom_kills=oom_kills,
        machine_oom_kills=machine_oom_kills,
        kernel_log=tuple(kernel.kernel_log_of(pid, since_s=began_s)) if may_be_logged and pid is not None else (),
        peak_bytes=ground.peak_bytes if ground is not None else None,
        memory_limit_bytes=group.limit_bytes() if group is not None else None,
        memory_available_bytes=room.available_bytes if (room := room_of(os.getpid())) is not None else None,
        free_bytes=disk.free_bytes,
        free_inodes=disk.free_inodes,
        is_read_only=disk.is_read_only,
        limits=ground.limits if ground is not None else {},
        phase=heartbeat.phase if heartbeat is not None else None,
        total=heartbeat.total if heartbeat is not None else None,
        heard_at=heartbeat.written_at if heartbeat is not None else None,
        booted_at=now - boot if is_other_boot else None,
        was_unwatched=was_unwatched,
    )


def last_sign(folder: Path, attempt: Attempt, facts: Facts, *, now: float) -> float:
    """Return when a trainer that nobody saw end gave its last sign of life."""
    signs = [attempt.started_at, *([facts.heard_at] if facts.heard_at is not None else [])]
    for name in ("trainer.log", "metrics.jsonl"):
        try:
            signs.append(os.stat(folder / name).st_mtime)
        except OSError:
            continue
    latest = min(now, facts.booted_at) if facts.booted_at is not None else now
    return min(latest, max(signs))


def _since(now: int | None, before: int | None) -> int | None:
    return max(0, now - before) if now is not None and before is not None else None
