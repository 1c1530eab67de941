"""A command that gives way works in a session of its own: what the kernel says of it, and what its shell sees."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.disk.layout import Layout
from overnight.launchers import aside, humble

pytestmark = pytest.mark.skipif(not humble.are_sessions_weighed(), reason="needs sched_autogroup_enabled=1")

PROC = Path("/proc")


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def fields(pid: int) -> list[str] | None:
    """The state, the parent, the process group, the session of a process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def is_gone(pid: int) -> bool:
    found = fields(pid)
    return found is None or found[0] in "ZX"


def state(pid: int) -> str:
    found = fields(pid)
    return found[0] if found else "gone"


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    return []


def session(pid: int) -> str:
    """What the kernel says of its session's weight; nothing where it belongs to the one that the machine began with."""
    return (PROC / str(pid) / "autogroup").read_text()


def niceness(pid: int) -> int:
    """The nice value of its whole session."""
    return int(session(pid).rpartition("nice")[2])


def command(layout: Layout, *words: str) -> list[str]:
    return [sys.executable, "-m", "overnight", "-C", str(layout.root), *words]


@contextmanager
def looking(layout: Layout) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``events -f`` at work: what the shell started, and the process that works."""
    with subprocess.Popen(command(layout, "events", "-f"), stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert "workspace.made" in started.stdout.readline()
            worker = children(started.pid)
            assert len(worker) == 1
            yield started, worker[0]
        finally:
            started.kill()


def test_its_session_goes_last_for_a_while_and_the_callers_stays_as_it_is(layout: Layout) -> None:
    before = session(os.getpid())
    with looking(layout) as (started, worker):
        found = fields(worker)
        assert found is not None
        assert int(found[3]) == worker  # it leads a session
        assert os.getpriority(os.PRIO_PROCESS, worker) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + aside.NICENESS)
        assert session(started.pid) == session(os.getpid()) == before
        wait(lambda: niceness(worker) == 0, "it is never given its fair share")


def test_it_goes_last_at_first(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"from overnight.launchers import aside; aside.PATIENCE_S = 600; aside.step_aside(); print(); {ENDLESS}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        (worker,) = children(started.pid)
        assert niceness(worker) == aside.SESSION_NICENESS
        assert os.sched_getscheduler(worker) == os.SCHED_IDLE
        assert os.sched_getscheduler(started.pid) == os.SCHED_OTHER
        started.kill()


def test_before_it_steps_aside_it_loads_next_to_nothing() -> None:
    """What it computes until then it takes from the training with its whole weight."""
    program = "import sys; before = set(sys.modules); from overnight import __main__; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    ours = {"overnight", "overnight.__main__", "overnight.launchers", "overnight.launchers.aside"}
    assert set(done.stdout.split()) <= ours | {"overnight.launchers.humble", "__future__", "_signal", "time"}


ENDLESS = "import time; time.sleep(600)"


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "raise SystemExit(75)", "os.kill(os.getpid(), 15)"])
def test_it_ends_as_the_command_ended(ending: str) -> None:
    plain = subprocess.run([sys.executable, "-c", f"import os; {ending}"], check=False)
    stepped = f"import os; from overnight.launchers import aside; aside.step_aside(); {ending}"
    assert subprocess.run([sys.executable, "-c", stepped], check=False).returncode == plain.returncode


def test_it_ends_as_the_command_ended_where_the_end_of_children_is_ignored() -> None:
    program = "from overnight.launchers import aside; aside.step_aside(); raise SystemExit(75)"
    ignoring = ["bash", "-c", "trap '' CHLD; exec \"$@\"", "bash", sys.executable, "-c", program]
    assert subprocess.run(ignoring, check=False).returncode == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)])
def test_a_signal_reaches_the_command(layout: Layout, number: signal.Signals, code: int) -> None:
    with looking(layout) as (started, worker):
        started.send_signal(number)
        assert started.wait(60) == code
        assert is_gone(worker)


def test_killed_it_leaves_nothing(layout: Layout) -> None:
    with looking(layout) as (started, worker):
        started.kill()
        wait(lambda: is_gone(worker), "the command outlived what the shell started")


def test_stopped_and_going_on(layout: Layout) -> None:
    with looking(layout) as (started, worker):
        started.send_signal(signal.SIGTSTP)
        wait(lambda: state(worker) == state(started.pid) == "T", "Ctrl-Z stops only one of the two")
        started.send_signal(signal.SIGCONT)
        wait(lambda: "T" not in state(worker) + state(started.pid), "it does not go on")
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == -15


def test_the_end_of_a_pipe_ends_it(layout: Layout) -> None:
    words = " ".join(command(layout, "events", "-f"))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -n 0"], capture_output=True, timeout=60, check=False
    )
    assert done.stderr == b""


def test_ctrl_c_in_a_terminal_ends_it_and_the_terminal_is_left_alone(layout: Layout) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command(layout, "events", "-f"))
    try:
        text = b""
        while b"workspace.made" not in text:
            text += os.read(terminal, 4096)
        (worker,) = children(pid)
        os.write(terminal, b"\x03")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 130
        assert is_gone(worker)
        with contextlib.suppress(OSError):  # the other end is closed
            text += os.read(terminal, 4096)
        assert b"Traceback" not in text
    finally:
        os.close(terminal)
