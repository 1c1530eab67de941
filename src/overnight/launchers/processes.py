"""Which process is which: pid, start time and boot id together, never a name.

A number alone is worth nothing: it is given out again. Signals go through a pidfd that is opened first and compared
afterwards, so that a stranger with the same number is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GONE = frozenset("ZX")
"""States of a process that will never run again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot."""

    pid: int
    started: int  # the kernel's start time, in clock ticks since boot
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}:{self.started}:{self.boot}"


@dataclass(frozen=True, slots=True)
class _Facts:
    state: str
    session: int
    started: int


def parse_identity(text: str) -> Identity:
    """Return the identity that a handle names. Raises ValueError."""
    pid, started, boot = text.split(":", 2)
    return Identity(pid=int(pid), started=int(started), boot=boot)


def boot_id() -> str:
    """Return the kernel's id of this boot, "" where it tells none."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> Identity | None:
    """Return who has a number now, or None where nobody has it."""
    facts = _facts(pid)
    return None if facts is None or facts.state in GONE else Identity(pid=pid, started=facts.started, boot=boot_id())


def is_alive(identity: Identity) -> bool:
    """Return whether that very process still runs."""
    facts = _facts(identity.pid)
    return (
        facts is not None
        and facts.state not in GONE
        and facts.started == identity.started
        and identity.boot == boot_id()
    )


def open_process(identity: Identity) -> int | None:
    """Return a pidfd of that very process, or None where it is gone (or the system has no pidfd)."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if is_alive(identity):
        return descriptor
    os.close(descriptor)
    return None


def close(descriptor: int) -> None:
    """Give a pidfd back."""
    os.close(descriptor)


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to that very process; return whether it was there."""
    if not hasattr(signal, "pidfd_send_signal"):
        if is_alive(identity):
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, number)
                return True
        return False
    descriptor = open_process(identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def kill_session(leader: Identity) -> None:
    """Kill a process and everything in the session that it leads.

    The kernel gives a number out again only when no session has it any more. So whoever is in the session of that
    number belongs to our leader, unless the number now is another process's own.
    """
    if leader.boot != boot_id():
        return
    now = _facts(leader.pid)
    if now is not None and now.started != leader.started:
        return  # the number was given out again: the whole session is gone
    send(leader, signal.SIGKILL)
    for member in session_members(leader.pid):
        send(member, signal.SIGKILL)


def session_members(session: int) -> list[Identity]:
    """Return the living processes of a session, its leader among them."""
    boot = boot_id()
    members: list[Identity] = []
    for name in os.listdir(PROC) if PROC.is_dir() else []:
        facts = _facts(int(name)) if name.isdigit() else None
        if facts is not None and facts.session == session and facts.state not in GONE:
            members.append(Identity(pid=int(name), started=facts.started, boot=boot))
    return members


def usable_threads() -> int:
    """Return how many CPU threads a trainer started now would use: OMP_NUM_THREADS, else what this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _facts(pid: int) -> _Facts | None:
    """Read /proc/PID/stat; the name in it may hold anything, so fields are counted from its closing bracket."""
    if not PROC.is_dir():
        return _facts_without_proc(pid)
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode("ascii", "replace")
    except OSError:
        return None
    fields = text[text.rfind(")") + 2 :].split()
    return _Facts(state=fields[0], session=int(fields[3]), started=int(fields[19])) if len(fields) > 19 else None


def _facts_without_proc(pid: int) -> _Facts | None:
    """Ask psutil on systems without /proc (macOS)."""
    import psutil  # only needed there, and a guard is to stay small

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
        return _Facts(state=state, session=os.getsid(pid), started=int(process.create_time() * 100))
    except (psutil.Error, OSError):
        return None
