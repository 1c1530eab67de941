"""Identity is pid, start time and boot id; a stranger is never signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from overnight.launchers import processes
from overnight.launchers.processes import Identity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def identity_of(child: subprocess.Popen[bytes]) -> Identity:
    found = processes.identify(child.pid)
    assert found is not None
    return found


def test_a_process_is_found_again_by_what_a_handle_says(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    assert processes.parse_identity(str(identity)) == identity
    assert processes.is_alive(identity)


@pytest.mark.parametrize("change", ["start time", "boot"])
def test_another_process_with_the_same_number_is_a_stranger_and_gets_no_signal(
    sleeper: subprocess.Popen[bytes], change: str
) -> None:
    real = identity_of(sleeper)
    stranger = replace(real, started=real.started + 1) if change == "start time" else replace(real, boot="another")
    assert not processes.is_alive(stranger)
    assert processes.open_process(stranger) is None
    assert not processes.send(stranger, signal.SIGKILL)
    processes.kill_session(stranger)
    assert sleeper.poll() is None


def test_a_zombie_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_alive(identity)
    assert processes.identify(sleeper.pid) is None


def test_killing_a_session_ends_what_the_leader_started_even_when_the_leader_is_gone() -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
    leader = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"up\n"
    identity = identity_of(leader)
    assert len(processes.session_members(leader.pid)) == 2
    os.kill(leader.pid, signal.SIGKILL)
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    processes.kill_session(identity)
    deadline = time.monotonic() + 5
    while processes.session_members(leader.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.session_members(leader.pid) == []
    leader.wait()
    leader.stdout.close()


def test_the_number_of_threads_follows_the_variable_and_else_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert processes.usable_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert processes.usable_threads() == len(os.sched_getaffinity(0))
