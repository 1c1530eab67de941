"""What the kernel knows of a process: its memory, its limits, who was killed for want of memory, and what it logged.

All of it is read, nothing is waited for, and whatever cannot be read is None or absent: a verdict then stands on less.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KMSG = Path("/dev/kmsg")
RECORDS_LIMIT = 20_000
READING_LIMIT_S = 0.5
LINES_KEPT = 10
LINE_LIMIT = 300
SLACK_S = 5.0
"""Between the clock of the kernel's log and ours."""

UNLIMITED = 1 << 60
"""A limit above this is none."""

_LIMITS = {
    "Max file size": "file_size",
    "Max cpu time": "cpu_time_s",
    "Max address space": "address_space",
    "Max open files": "open_files",
    "Max processes": "processes",
    "Max locked memory": "locked_memory",
}


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The memory cgroup of a process, version 1 or 2."""

    folder: Path
    top: Path  # where its hierarchy is mounted

    def oom_kills(self) -> int | None:
        """Return how many of its processes were ever killed for want of memory; None where nothing counts them."""
        for name in ("memory.events", "memory.oom_control"):
            for line in _lines(self.folder / name):
                word, _, count = line.partition(" ")
                if word == "oom_kill" and count.strip().isdigit():
                    return int(count)
        return None

    def limit_bytes(self) -> int | None:
        """Return the tightest limit on it, its ancestors' included; None where there is none."""
        limits = [_number(folder / name) for folder in self.levels() for name in _LIMIT_FILES]
        return min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)

    def levels(self) -> list[Path]:
        """Return its folder and those above it, up to the root of its hierarchy: each may set a limit."""
        folders = [self.folder]
        while folders[-1] != self.top and self.top in folders[-1].parents:
            folders.append(folders[-1].parent)
        return folders


_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")


def memory_group(pid: int | str) -> MemoryGroup | None:
    """Return the memory cgroup of a process ("self" too), or None where it has none that can be seen."""
    places = {}
    for line in _lines(PROC / str(pid) / "cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            places[controller] = path
    for kind in ("memory", ""):
        if kind not in places:
            continue
        path = places[kind]
        for root, mounted in _mounts(kind):
            inner = os.path.relpath(path, root) if path.startswith(root) else path.lstrip("/")
            folder = Path(os.path.normpath(mounted / inner))
            group = MemoryGroup(
                folder if folder.is_dir() and mounted in (folder, *folder.parents) else mounted, mounted
            )
            if group.oom_kills() is not None:
                return group
    return None


def group_at(folder: Path) -> MemoryGroup:
    """Return the memory cgroup that lies in a folder."""
    tops = [top for kind in ("memory", "") for _, top in _mounts(kind) if top == folder or top in folder.parents]
    return MemoryGroup(folder, max(tops, key=lambda top: len(top.parts), default=folder))


def _mounts(kind: str) -> list[tuple[str, Path]]:
    """Return (root inside the hierarchy, mount point) of the memory hierarchy of version 1, or with "" of version 2."""
    found = []
    for line in _lines(PROC / "self" / "mountinfo"):
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split()
        if len(words) < 5 or len(rest) < 3:
            continue
        options = rest[2].split(",")
        if (kind == "memory" and rest[0] == "cgroup" and "memory" in options) or (kind == "" and rest[0] == "cgroup2"):
            found.append((words[3], Path(words[4])))
    return found


def machine_oom_kills() -> int | None:
    """Return how many processes of the whole machine were killed for want of memory since it started."""
    for line in _lines(PROC / "vmstat"):
        word, _, count = line.partition(" ")
        if word == "oom_kill" and count.isdigit():
            return int(count)
    return None


def peak_bytes(pid: int) -> int | None:
    """Return the most memory that a living process ever held (resident)."""
    return _kilobytes(PROC / str(pid) / "status", "VmHWM")


def limits_of(pid: int) -> dict[str, int]:
    """Return the limits that are set on a living process (soft ones; what is unlimited is absent)."""
    found: dict[str, int] = {}
    for line in _lines(PROC / str(pid) / "limits"):
        for title, name in _LIMITS.items():
            if line.startswith(title):
                soft = line[len(title) :].split()[0]
                if soft.isdigit():
                    found[name] = int(soft)
    return found


def kernel_log_of(pid: int, *, since_s: float) -> list[str]:
    """Return the newest lines of the kernel's log that name a process; ``since_s`` (monotonic) is when it began.

    Read without waiting, and no longer than half a second; empty where it may not be read.
    """
    names = re.compile(rf"\bprocess {pid} \(|\w\[{pid}\]|\bpid[ =:]+'?{pid}\b|\btask \S+:{pid}\b", re.IGNORECASE)
    try:
        descriptor = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    kept: list[str] = []
    until = time.monotonic() + READING_LIMIT_S
    try:
        for _ in range(RECORDS_LIMIT):
            if time.monotonic() > until:
                break
            try:
                record = os.read(descriptor, 8192)
            except BrokenPipeError:
                continue  # the ring has moved on under us: the next one is read
            except OSError:
                break  # no more for now, or it may not be read
            head, _, text = record.decode("utf-8", "replace").partition(";")
            if _time_s(head) >= since_s - SLACK_S and names.search(text):
                kept = [*kept[1 - LINES_KEPT :], text.split("\n", 1)[0][:LINE_LIMIT]]
    finally:
        os.close(descriptor)
    return kept


def _time_s(head: str) -> float:
    fields = head.split(",")
    return int(fields[2]) / 1e6 if len(fields) > 2 and fields[2].isdigit() else 0.0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = (_lines(path) or [""])[0].strip()
    return int(text) if text.isdigit() else None


def _kilobytes(path: Path, name: str) -> int | None:
    for line in _lines(path):
        if line.startswith(f"{name}:"):
            word = line.split()[1]
            return int(word) * 1024 if word.isdigit() else None
    return None
