"""Guards short of handles and memory: told, recovered, nothing leaks."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from control_group import MemoryGroup
from overnight.disk import files
from simulated_rig import Rig

pytestmark = pytest.mark.crash

GREEDY = """
import os, pathlib, sys, threading, time
flag = pathlib.Path({flag!r})
def watch():
    while not flag.exists():
        time.sleep(0.02)
    flag.unlink()
    held = [bytearray(1 << 20) for _ in range(1000)]
if sys.orig_argv[-2:-1] == ["overnight.daemon"]:
    threading.Thread(target=watch, daemon=True).start()
"""


def watchdog_pid(rig: Rig) -> int | None:
    return (files.lock_holder(rig.layout.watchdog_lock) or {}).get("pid")


def handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_watchdog_without_a_handle_left_says_so_and_brings_the_loop_back_when_it_has_some(rig: Rig) -> None:
    rig.make()
    watchdog = rig.start_watchdog()
    loop = rig.wait(rig.daemon_pid)
    rig.wait(lambda: watchdog_pid(rig))
    limits = resource.prlimit(watchdog.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(watchdog.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    log = rig.layout.logs / "watchdog.log"
    rig.wait(lambda: "Too many open files" in log.read_text())
    os.kill(loop, signal.SIGKILL)
    resource.prlimit(watchdog.pid, resource.RLIMIT_NOFILE, limits)
    rig.wait(lambda: rig.daemon_pid() not in (None, loop))
    assert watchdog.poll() is None
    rig.drop("a.jsonl")
    rig.wait(lambda: rig.jobs() and rig.is_done())


def test_a_loop_out_of_handles_takes_no_living_trainer_for_dead(rig: Rig) -> None:
    rig.simulate(step_s=0.2)
    rig.make(files=1)
    rig.start_loop()
    rig.wait(lambda: rig.step() >= 2)
    os.kill(rig.daemon_pid() or 0, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() is None)
    loop = rig.start_loop()  # the trainer is adopted: it is found by /proc, which takes a handle
    rig.wait(lambda: rig.events("attempt.adopted"))
    limits = resource.prlimit(loop.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(loop.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    step = rig.step()
    rig.wait(lambda: rig.step() >= step + 3 or rig.step() == 16)
    assert rig.attempts()[0].outcome is None
    resource.prlimit(loop.pid, resource.RLIMIT_NOFILE, limits)
    rig.wait(rig.is_done)
    assert len(rig.attempts()) == 1


def test_many_kills_later_no_guard_holds_more_handles_than_before(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1, rows=1200, watch__max_restarts=1000)
    watchdog = rig.start_watchdog()
    held: list[int] = []
    for _ in range(6):
        loop = rig.wait(rig.daemon_pid)
        rig.wait(rig.trainer_pid)
        held.append(handles(watchdog.pid))
        os.kill(loop, signal.SIGKILL)
        rig.wait(lambda old=loop: rig.daemon_pid() not in (None, old))
    assert max(held[1:]) <= held[0] + 1, held
    loop, held = rig.wait(rig.daemon_pid), []
    for _ in range(4):
        trainer = rig.wait(rig.trainer_pid)
        held.append(handles(loop))
        os.kill(trainer, signal.SIGKILL)
        rig.wait(lambda old=trainer: rig.trainer_pid() not in (None, old))
    assert max(held[2:]) <= held[1] + 2, held  # what the first errands need stays open


def test_a_loop_that_the_kernel_kills_for_want_of_memory_is_brought_back(
    rig: Rig, group: MemoryGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    flag = tmp_path / "flag"
    (tmp_path / "site" / "sitecustomize.py").write_text(GREEDY.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    rig.simulate(step_s=0.3)
    rig.make(files=1)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 1)
    loop, trainer = rig.daemon_pid(), rig.trainer_pid()
    assert loop is not None
    group.limit(200 << 20)
    group.take(loop)
    flag.touch()
    rig.wait(lambda: rig.daemon_pid() not in (None, loop))
    assert "SIGKILL" in rig.events("daemon.restarted")[0]["message"]
    rig.wait(rig.is_done)
    assert f":{trainer}:" in (rig.attempts()[0].handle or "")
    assert len(rig.attempts()) == 1
    assert group.kills() == 1
