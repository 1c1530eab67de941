"""What the kernel says of a process: its state, its processor time, how long its threads were ready and not let run.

Only files of /proc that never wait are read here: those that need the memory map of a process (cmdline, maps) can hang
with it.
"""

from __future__ import annotations

import os

from overnight.domain.vitals import Vitals
from overnight.launchers.processes import PROC, Identity, is_alive, session_members

MOST_THREADS = 64
"""Of more threads no waits are read, but always those of the main one: a look is cheap, five times a second."""

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
NANO = 1e-9


def look(process: Identity, *, for_children: bool = False) -> Vitals | None:
    """Return what the kernel says of that very process, or None where it is gone or the system does not tell.

    To look for its children, all processes are read: only worth it where something seems wrong.
    """
    folder = PROC / str(process.pid)
    try:
        text = (folder / "stat").read_bytes().decode("ascii", "replace")
        fields = text[text.rfind(")") + 2 :].split()
        state, used = fields[0], int(fields[11]) + int(fields[12])
        threads = os.listdir(folder / "task")
    except (OSError, IndexError, ValueError):
        return None
    if not is_alive(process):
        return None
    if len(threads) > MOST_THREADS:
        threads = [str(process.pid), *sorted(threads)[: MOST_THREADS - 1]]
    waits = {int(name): waited for name in threads if (waited := _waited(process.pid, name)) is not None}
    return Vitals(
        state=state,
        cpu_s=used / TICKS,
        main=process.pid,
        has_children=for_children and len(session_members(process.pid)) > 1,
        io_bytes=_io_bytes(process.pid),
        waited_s=waits,
    )


def _io_bytes(pid: int) -> int:
    """Return what a process read and wrote: by calls, and from the disk behind its memory; 0 where that is not told."""
    try:
        lines = dict(line.split(b": ") for line in (PROC / str(pid) / "io").read_bytes().splitlines())
        return sum(int(lines[name]) for name in (b"rchar", b"wchar", b"read_bytes"))
    except (OSError, KeyError, ValueError):
        return 0


def _waited(pid: int, thread: str) -> float | None:
    """Return how long a thread was ready to run and not let run; None where the kernel keeps no such books."""
    try:
        return int((PROC / str(pid) / "task" / thread / "schedstat").read_bytes().split()[1]) * NANO
    except (OSError, IndexError, ValueError):
        return None
