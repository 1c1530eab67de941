"""Taking in orphans: a trainer that was forked twice becomes our child, so that its end is a fact from the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Collection

from overnight.launchers import processes

PR_SET_CHILD_SUBREAPER = 36


def take_in(wanted: bool = True) -> bool:
    """Become the parent of every descendant that loses its own one; return whether the system does that."""
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False


def reap(pid: int, *, limit_s: float) -> bool:
    """Take note of an orphan's end, waiting for it a little; return whether it has ended."""
    until = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
    return True


def reap_members(leaders: Collection[int]) -> None:
    """Bury what has come to us from the sessions of spares and trainers that are gone; nobody else waits for it."""
    while leaders:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in leaders or processes.session_of(found.si_pid) not in leaders:
            return
        os.waitpid(found.si_pid, 0)
