"""A helper that goes last and does not outlive the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overnight.launchers import humble

CHILD = "from overnight.launchers.humble import be_humble; be_humble(); print('ready', flush=True); input()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_it_goes_last_and_ends_with_its_parent_however_that_ends() -> None:
    pipes = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipes[0], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)
    for descriptor in pipes:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("switch", "groups", "shares", "expected"),
    [
        ("1\n", "0::/\n", [], True),
        ("0\n", "0::/\n", [], False),
        (None, "0::/\n", [], False),
        ("1\n", None, [], True),
        ("1\n", "0::/user.slice/session-3.scope\n", [], True),
        ("1\n", "0::/user.slice/session-3.scope\n", ["user.slice"], False),
        ("1\n", "0::/\n", ["."], False),  # a container: its root is not the machine's
        ("1\n", "4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/x\n", [], True),
        ("1\n", "4:cpuacct,cpu:/docker/1\n0::/\n", [], False),
        ("1\n", "4:cpuset:/docker/1\n0::/\n", [], True),
    ],
)
def test_sessions_are_weighed_unless_the_group_has_a_share_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str | None, groups: str | None, shares: list[str],
    expected: bool,
) -> None:  # fmt: skip
    for name, text in (("SWITCH", switch), ("OWN_GROUPS", groups)):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(humble, name, str(path))
    monkeypatch.setattr(humble, "GROUPS", str(tmp_path))
    for share in shares:
        (tmp_path / share).mkdir(exist_ok=True)
        (tmp_path / share / "cpu.weight").write_text("100")
    assert humble.are_sessions_weighed() is expected


@pytest.mark.skipif(not humble.are_sessions_weighed(), reason="sessions are not weighed here")
def test_a_helper_goes_last_with_a_session_of_its_own() -> None:
    program = "from overnight.launchers import humble; humble.step_back(7); print(flush=True); input()"
    before = Path("/proc/self/autogroup").read_text()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        assert helper.stdout is not None
        helper.stdout.readline()
        assert os.getsid(helper.pid) == helper.pid
        assert Path(f"/proc/{helper.pid}/autogroup").read_text().split()[-1] == "7"
        assert os.getpriority(os.PRIO_PROCESS, helper.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
        helper.kill()
    assert Path("/proc/self/autogroup").read_text() == before
