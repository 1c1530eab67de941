"""What the kernel says of a process: its state, its processor time, how long its threads were ready and not let run.

Only files of /proc that never wait are read here: those that need the memory map of a process (cmdline, maps) can hang
with it.
"""

from __future__ import annotations

import os

from overnight.domain.vitals import Vitals
from overnight.launchers.processes import GONE, PROC, Identity, session_members

MOST_THREADS = 32
"""Of more threads no waits are read, but always those of the main one: a look is cheap, five times a second."""

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
NANO = 1e-9


def look(process: Identity, *, closely: bool = True, for_children: bool = False) -> Vitals | None:
    """Return what the kernel says of that very process, or None where it is gone or the system does not tell.

    The more is read the dearer it is: the waits of each thread only where it is looked at closely, and all processes
    of the machine to find its children. Both are only worth it where something seems wrong.
    """
    folder = PROC / str(process.pid)
    try:
        text = (folder / "stat").read_bytes().decode("ascii", "replace")
        fields = text[text.rfind(")") + 2 :].split()
        state, used, started = fields[0], int(fields[11]) + int(fields[12]), int(fields[19])
        threads = os.listdir(folder / "task") if closely else []
    except (OSError, IndexError, ValueError):
        return None
    if state in GONE or started != process.started:
        return None
    if len(threads) > MOST_THREADS:
        threads = [str(process.pid), *sorted(threads)[: MOST_THREADS - 1]]
    return Vitals(
        state=state,
        cpu_s=used / TICKS,
        main=process.pid,
        has_children=for_children and len(session_members(process.pid)) > 1,
        io_bytes=_io_bytes(process.pid) if closely else 0,
        waited_s={int(name): waited for name in threads if (waited := _waited(process.pid, name)) is not None},
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
