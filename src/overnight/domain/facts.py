"""What the kernel and the disk say about an ended attempt, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from overnight.domain.attempt import Phase

LITTLE_SPACE_BYTES = 1 << 20
"""With less free space than this, nothing of use can be written."""

_KILLED_FOR_MEMORY = re.compile(r"out of memory|oom[-_ ]kill|oom_reaper|killed process", re.IGNORECASE)
_KILLED_SIZE = re.compile(r"anon-rss:(\d+)kB")
_GPU_FAULT = re.compile(r"\bXid\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Gathered when the end was seen; what could not be read is None or empty."""

    oom_kills: int | None = None  # in the trainer's memory group, since it was launched
    machine_oom_kills: int | None = None  # of the whole machine, since then
    kernel_log: tuple[str, ...] = ()  # lines that name the trainer's process
    peak_bytes: int | None = None  # the most memory it was seen to hold
    memory_limit_bytes: int | None = None
    memory_available_bytes: int | None = None
    free_bytes: int | None = None  # on the disk of the workspace
    free_inodes: int | None = None
    is_read_only: bool = False
    limits: dict[str, int] = field(default_factory=dict)  # that were set on the process
    phase: Phase | None = None  # of its last heartbeat that was seen while it lived
    total: int | None = None  # the last step of the job, where it had come to train
    heard_at: float | None = None  # unix seconds: its last heartbeat
    booted_at: float | None = None  # unix seconds, where the machine has been started again since the launch
    was_unwatched: bool = False  # it ended while no loop looked


def memory_kill(facts: Facts) -> str | None:
    """Return what proves that the kernel killed the process for want of memory, or None."""
    named = [line for line in facts.kernel_log if _KILLED_FOR_MEMORY.search(line)]
    if named:
        return f"the kernel's log says: {named[-1]}"
    if facts.oom_kills:
        return f"the memory cgroup counts {facts.oom_kills} killed for want of memory since the launch"
    if facts.oom_kills is None and facts.machine_oom_kills:
        return f"the machine counts {facts.machine_oom_kills} killed for want of memory since the launch"
    return None


def memory_held(facts: Facts) -> int | None:
    """Return the most memory that the process is known to have held."""
    told = [int(match[1]) * 1024 for line in facts.kernel_log if (match := _KILLED_SIZE.search(line))]
    known = [*told, *([facts.peak_bytes] if facts.peak_bytes is not None else [])]
    return max(known, default=None)


def gpu_fault(facts: Facts) -> str | None:
    """Return the kernel's word of a GPU fault that names the process, or None."""
    return next((line for line in facts.kernel_log if _GPU_FAULT.search(line)), None)


def disk_trouble(facts: Facts) -> str | None:
    """Return why the disk takes no writes, or None where it does."""
    if facts.is_read_only:
        return "the file system of the workspace is read-only"
    if facts.free_bytes is not None and facts.free_bytes < LITTLE_SPACE_BYTES:
        return f"the disk is full ({facts.free_bytes} bytes are free)"
    if facts.free_inodes is not None and facts.free_inodes == 0:
        return "the file system is out of inodes"
    return None


def in_words(facts: Facts) -> list[str]:
    """Return the facts as lines of evidence."""
    lines = [f"kernel log: {line}" for line in facts.kernel_log]
    if facts.phase is not None:
        lines.append(f"it was {facts.phase.value}")
    if facts.oom_kills is not None:
        lines.append(f"killed for want of memory in its cgroup since the launch: {facts.oom_kills}")
    elif facts.machine_oom_kills is not None:
        lines.append(f"killed for want of memory on this machine since the launch: {facts.machine_oom_kills}")
    sizes = {
        "the most memory it was seen to hold": memory_held(facts),
        "memory limit": facts.memory_limit_bytes,
        "memory available afterwards": facts.memory_available_bytes,
        "free on the disk": facts.free_bytes,
    }
    lines += [f"{name}: {value / 1e6:.1f} MB" for name, value in sizes.items() if value is not None]
    if (trouble := disk_trouble(facts)) is not None:
        lines.append(trouble)
    lines += [f"limit on {name.replace('_', ' ')}: {value}" for name, value in sorted(facts.limits.items())]
    if facts.was_unwatched:
        lines.append("it ended while nobody looked")
    return lines
