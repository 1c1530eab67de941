"""What the kernel says of a process: its state, its processor time, how long its threads were ready and not let run.

Only files of /proc that never wait are read here: those that need the memory map of a process (cmdline, maps) can hang
with it.
"""

from __future__ import annotations

import os

from overnight.domain.vitals import Vitals
from overnight.launchers.processes import PROC, Identity, is_alive

MOST_THREADS = 64
"""Of a process with more threads only the main one's waits are read: a look is cheap, five times a second."""

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
NANO = 1e-9


def look(process: Identity) -> Vitals | None:
    """Return what the kernel says of that very process, or None where it is gone or the system does not tell."""
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
        threads = [str(process.pid)]
    waits = {int(name): waited for name in threads if (waited := _waited(process.pid, name)) is not None}
    return Vitals(state=state, cpu_s=used / TICKS, main=process.pid, waited_s=waits)


def _waited(pid: int, thread: str) -> float | None:
    """Return how long a thread was ready to run and not let run; None where the kernel keeps no such books."""
    try:
        return int((PROC / str(pid) / "task" / thread / "schedstat").read_bytes().split()[1]) * NANO
    except (OSError, IndexError, ValueError):
        return None
