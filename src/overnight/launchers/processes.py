"""Which process is which: pid, start time and boot id together, never a name.

A number alone is worth nothing: it is given out again. Signals go through a pidfd that is opened first and compared
afterwards, so that a stranger with the same number is never hit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GONE = frozenset("ZX")
"""States of a process that will never run again."""

_UNKNOWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about a process: we only cannot look. They pass as OSError, lest it be taken for gone."""

_NO_PIDFD = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
"""Errors of a system, or a sandbox, without pidfds."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot."""

    pid: int
    started: int  # the kernel's start time, in clock ticks since boot
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}:{self.started}:{self.boot}"


@dataclass(frozen=True, slots=True)
class Activity:
    """What the kernel knows of how a process goes."""

    state: str  # the kernel's letter: R S D T t
    worked: int  # processor time so far, in clock ticks
    starved_s: float  # time in line for a processor so far


@dataclass(frozen=True, slots=True)
class _Facts:
    state: str
    session: int
    started: int
    worked: int = 0


def parse_identity(text: str) -> Identity:
    """Return the identity that a handle names. Raises ValueError."""
    pid, started, boot = text.split(":", 2)
    return Identity(pid=int(pid), started=int(started), boot=boot)


def boot_id() -> str:
    """Return the kernel's id of this boot, "" where it tells none."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        if error.errno in _UNKNOWN:
            raise
        return ""


def identify(pid: int) -> Identity | None:
    """Return who has a number now, or None where nobody has it."""
    facts = _facts(pid)
    return None if facts is None or facts.state in GONE else Identity(pid=pid, started=facts.started, boot=boot_id())


def ourselves() -> str:
    """Return our own identity as a lock file names it."""
    return str(identify(os.getpid()))


def identity_of(holder: Mapping[str, object] | None) -> Identity | None:
    """Return the living process that a lock's text names, None where it is gone or the text names none.

    A number alone is only believed where the text says nothing better: in another container it is somebody else's.
    """
    told = holder.get("identity") if holder is not None else None
    if isinstance(told, str):
        try:
            identity = parse_identity(told)
        except ValueError:
            return None
        return identity if is_alive(identity) else None
    pid = holder.get("pid") if holder is not None else None
    return identify(pid) if isinstance(pid, int) else None


def keepers_of_lock(path: Path) -> list[Identity]:
    """Return the living processes that keep a kernel lock on a file or folder, as far as this user may see.

    A lock belongs to an open file, and whoever inherited that keeps it, also when the one that took it is gone.
    """
    try:
        facts = os.stat(path)
    except OSError:
        return []
    found: list[Identity] = []
    for name in filter(str.isdigit, os.listdir(PROC) if PROC.is_dir() else []):
        if _keeps_lock(PROC / name, facts) and (identity := identify(int(name))) is not None:
            found.append(identity)
    return found


def name_of(identity: Identity) -> str:
    """Return what the kernel calls a process: for people only, anybody may call himself so."""
    return _read(PROC / str(identity.pid) / "comm")


def _keeps_lock(process: Path, facts: os.stat_result) -> bool:
    try:
        for descriptor in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                seen = os.stat(process / "fd" / descriptor)
                if (seen.st_dev, seen.st_ino) == (facts.st_dev, facts.st_ino):
                    told = _read(process / "fdinfo" / descriptor)
                    if any(line.startswith("lock:") and " FLOCK " in line for line in told.splitlines()):
                        return True
    except OSError:  # it is gone, or another user's
        return False
    return False


def is_alive(identity: Identity) -> bool:
    """Return whether that very process still runs. Raises OSError where nobody can tell."""
    return _facts_of(identity) is not None


def activity(identity: Identity) -> Activity | None:
    """Return how that very process goes, or None where it is gone. Raises OSError where nobody can tell."""
    facts = _facts_of(identity)
    if facts is None:
        return None
    return Activity(state=facts.state, worked=facts.worked, starved_s=_starved_s(identity.pid))


def describe(identity: Identity) -> list[str]:
    """Return what the kernel tells of each thread of a process: evidence for people, one line or more a thread."""
    lines: list[str] = []
    tasks = PROC / str(identity.pid) / "task"
    try:
        threads = sorted(os.listdir(tasks), key=int)
    except OSError:
        return lines
    for thread in threads:
        told = {name: _read(tasks / thread / name) for name in ("comm", "stat", "wchan", "syscall", "stack")}
        state = told["stat"].rpartition(")")[2].split()
        where = told["wchan"] if told["wchan"] not in ("", "0") else "user code"
        lines.append(
            f"thread {thread} {told['comm']}: state {state[0] if state else '?'}, in {where},"
            f" syscall {told['syscall'].split(' ')[0] or 'unknown'}"
        )
        lines += [f"  {line}" for line in told["stack"].splitlines()[:12]]
    return lines


def error_output(identity: Identity) -> Path | None:
    """Return the file that takes a process's standard error, None where it is none or nobody may know."""
    link = PROC / str(identity.pid) / "fd" / "2"
    try:
        return Path(os.readlink(link)) if stat.S_ISREG(os.stat(link).st_mode) else None
    except OSError:
        return None


def open_process(identity: Identity) -> int | None:
    """Return a pidfd of that very process, or None where it is gone (or the system has no pidfd).

    Raises OSError where nobody can tell.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError as error:
        if error.errno in _UNKNOWN:
            raise
        return None
    try:
        if is_alive(identity):
            return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def close(descriptor: int) -> None:
    """Give a pidfd back."""
    os.close(descriptor)


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to that very process; return whether it was there. Raises OSError where nobody can tell."""
    if not _has_pidfd():
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


def _has_pidfd() -> bool:
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return error.errno not in _NO_PIDFD
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


def session_of(pid: int) -> int | None:
    """Return the session that a process is in, also where it has ended and nobody has taken note of it."""
    facts = _facts(pid)
    return facts.session if facts is not None else None


def usable_threads() -> int:
    """Return how many CPU threads a trainer started now would use: OMP_NUM_THREADS, else what this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isascii() and wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _facts_of(identity: Identity) -> _Facts | None:
    """Return the facts of that very process, None where it is gone."""
    facts = _facts(identity.pid)
    if facts is None or facts.state in GONE or facts.started != identity.started or identity.boot != boot_id():
        return None
    return facts


def _facts(pid: int) -> _Facts | None:
    """Read /proc/PID/stat; the name in it may hold anything, so fields are counted from its closing bracket."""
    if not PROC.is_dir():
        return _facts_without_proc(pid)
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode("ascii", "replace")
    except OSError as error:
        if error.errno in _UNKNOWN:
            raise
        return None
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) <= 19:
        return None
    worked = int(fields[11]) + int(fields[12])
    return _Facts(state=fields[0], session=int(fields[3]), started=int(fields[19]), worked=worked)


def _starved_s(pid: int) -> float:
    """Return for how long the main thread has stood in line for a processor; 0 where the kernel does not tell."""
    fields = _read(PROC / str(pid) / "schedstat").split()
    return int(fields[1]) / 1e9 if len(fields) > 1 and fields[1].isdigit() else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _facts_without_proc(pid: int) -> _Facts | None:
    """Ask psutil on systems without /proc (macOS)."""
    import psutil  # only needed there, and a guard is to stay small

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
        return _Facts(state=state, session=os.getsid(pid), started=int(process.create_time() * 100))
    except (psutil.Error, OSError):
        return None
