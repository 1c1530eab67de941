"""Going last: helpers and commands that give way to a training on the same cores.

A nice value alone does that only among the processes of one session. Linux shares the processor between sessions first,
each with the same weight (autogroup, sched(7)), and a session that computes on all cores has its weight divided among
them: one command in a terminal, nice 19 or not, took two thirds of a core from a trainer. So the session gives way as a
whole, and has to be one of our own: the user's terminal stays as it is.

Little is imported here, and ctypes and signal late: a command gives way before it loads anything.
"""

from __future__ import annotations

import os

NICENESS = 15
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
IOPRIO_WHO_PROCESS = 1
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
LONG_TURN_NS = 100_000_000  # the kernel takes no more
IDLE = 3 << 13
PR_SET_PDEATHSIG = 1

SWITCH = "/proc/sys/kernel/sched_autogroup_enabled"
OWN_GROUPS = "/proc/self/cgroup"
GROUPS = "/sys/fs/cgroup"


def be_humble() -> None:
    """Let everybody else go first, and die with the process that started this one; what the system lacks is left."""
    import ctypes

    step_back(NICENESS)
    die_with_parent()
    number = IOPRIO_SET.get(os.uname().machine)
    try:
        if number is not None:
            ctypes.CDLL(None, use_errno=True).syscall(number, IOPRIO_WHO_PROCESS, 0, IDLE)
    except (OSError, AttributeError):
        return


def step_back(niceness: int) -> None:
    """Let everybody else go first at the processor; in a session of its own, where sessions are weighed."""
    be_nice(niceness)
    be_preempted()
    if not are_sessions_weighed():
        return
    if os.getsid(0) != os.getpid():
        try:
            os.setsid()
        except OSError:  # it leads a group of processes that is not its own session
            return
    weigh_session(os.getpid(), niceness=niceness)


def be_nice(niceness: int) -> None:
    """Let the processes of the same session go first."""
    try:
        os.nice(niceness)
    except OSError:
        return


def die_with_parent() -> None:
    """End, by SIGKILL, when the process that started this one does, where the system knows how."""
    import ctypes
    import signal

    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return


def be_preempted() -> None:
    """Let whoever wakes up have the processor at once, where the system knows how (Linux 6.12).

    Otherwise the kernel lets a process finish its turn of some milliseconds, however low it stands, and threads that
    wait for each other many times a step wait for it each time. Whoever asks for longer turns than others (by
    sched_runtime, sched_setattr(2)) may be interrupted in them.
    """
    import ctypes
    import struct

    number = SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    wish = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, LONG_TURN_NS, 0, 0)
    try:
        ctypes.CDLL(None, use_errno=True).syscall(number, 0, wish, 0)
    except (OSError, AttributeError):
        return


def be_idle() -> None:
    """Let the kernel look at the processor as idle while this process is on it. There is no way back but for root.

    Only where sessions are weighed: the session can be given its share again, while among the processes of one session
    an idle one may starve.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        return


def are_sessions_weighed() -> bool:
    """Return whether the kernel shares the processor between sessions first.

    It does not within a control group that has a share of its own (a container, most services): there a nice value
    does all that it says.
    """
    return _text(SWITCH).strip() == "1" and not any(map(_has_share, _text(OWN_GROUPS).splitlines()))


def _has_share(line: str) -> bool:
    """Return whether a line of /proc/self/cgroup names a control group that has a share of the processor."""
    _, controllers, path = line.split(":", 2)
    if controllers:  # version 1: all but the root have one
        return "cpu" in controllers.split(",") and path != "/"
    levels = [part for part in path.split("/") if part]
    folders = ["/".join([GROUPS, *levels[:depth]]) for depth in range(len(levels) + 1)]
    return any(os.path.exists(f"{folder}/cpu.weight") for folder in folders)


def _text(path: str) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, 65536).decode(errors="replace")
        finally:
            os.close(file)
    except OSError:
        return ""


def weigh_session(pid: int, *, niceness: int) -> bool:
    """Set the nice value of a process's whole session; return whether the kernel took it.

    It takes only one in a tenth of a second from those who are not root, from all of them together.
    """
    try:
        weight = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(weight, str(niceness).encode())
        finally:
            os.close(weight)
    except OSError:
        return False
    return True
