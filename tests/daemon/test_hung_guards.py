"""Guards that hang, not die: found by their beat, killed by their identity, replaced; what is no hang is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.disk import files
from overnight.launchers import beats, processes
from simulated_rig import Rig

pytestmark = pytest.mark.crash

DEADLOCK = """
import os, pathlib, signal, sys, threading, time
flag = pathlib.Path({flag!r})
def hang(number, frame):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
def watch():
    while not flag.exists():
        time.sleep(0.02)
    flag.unlink()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
if sys.orig_argv[-2] == {module!r}:
    signal.signal(signal.SIGALRM, hang)
    threading.Thread(target=watch, daemon=True).start()
"""
"""A real deadlock of the main thread, on order, in the process of one module."""


def watchdog_pid(rig: Rig) -> int | None:
    seen = files.lock_holder(rig.layout.watchdog_lock)
    return seen.get("pid") if seen else None


def is_gone(pid: int) -> bool:
    return processes.identify(pid) is None


@pytest.fixture
def working(rig: Rig) -> tuple[int, int, int]:
    """Start guards and a slow trainer; return the pids of watchdog, loop and trainer."""
    rig.simulate(step_s=0.15)
    rig.make(files=1, watch__daemon_dead_s=1, watch__back_up_s=2)
    started = rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 2 and watchdog_pid(rig))
    loop, trainer = rig.daemon_pid(), rig.trainer_pid()
    assert loop is not None
    assert trainer is not None
    return started.pid, loop, trainer


def check_untouched(rig: Rig, trainer: int) -> None:
    """Check that the one trainer went on all the while, to the end of the job."""
    rig.wait(rig.is_done)
    (attempt,) = rig.attempts()
    assert attempt.handle is not None
    assert f":{trainer}:" in attempt.handle
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 64


def test_a_stopped_loop_is_killed_and_replaced_and_its_trainer_goes_on(rig: Rig, working: tuple[int, int, int]) -> None:
    _, loop, trainer = working
    os.kill(loop, signal.SIGSTOP)
    step = rig.step()
    rig.wait(lambda: rig.daemon_pid() not in (None, loop))
    assert is_gone(loop), "the old one is gone before the new one begins: it can never write again"
    assert rig.step() > step, "the steps never stood still"
    told = (rig.layout.logs / "watchdog.log").read_text()
    assert "it is stopped (by a signal): nothing moved for" in told
    assert f"thread {loop}" in told, "what could be seen of it was written down"
    assert "was killed: it is stopped" in rig.events("daemon.restarted")[0]["message"]
    check_untouched(rig, trainer)


@pytest.mark.parametrize("module", ["overnight.daemon", "overnight.daemon.watchdog"])
def test_a_guard_in_a_deadlock_is_replaced_and_its_stacks_are_kept(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / "site").mkdir()
    flag = tmp_path / "flag"
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLOCK.format(flag=str(flag), module=module))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    rig.simulate(step_s=0.15)
    rig.make(files=1, watch__daemon_dead_s=1, watch__back_up_s=2)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 2 and watchdog_pid(rig))
    finders = {"overnight.daemon": rig.daemon_pid, "overnight.daemon.watchdog": lambda: watchdog_pid(rig)}
    find, trainer = finders[module], rig.trainer_pid()
    hung = find()
    flag.touch()
    rig.wait(lambda: find() not in (None, hung))
    told = (rig.layout.logs / "watchdog.log").read_text()
    assert "it hangs" in told
    assert "in hang" in told, "the Python stack of the deadlock"
    assert trainer is not None
    check_untouched(rig, trainer)


def test_a_stopped_watchdog_is_killed_and_replaced_by_the_loop(rig: Rig, working: tuple[int, int, int]) -> None:
    watchdog, loop, trainer = working
    os.kill(watchdog, signal.SIGSTOP)
    rig.wait(lambda: watchdog_pid(rig) not in (None, watchdog))
    assert rig.daemon_pid() == loop
    assert "is killed: it is stopped" in rig.events("watchdog.hung")[0]["message"]
    assert "it is stopped" in (rig.layout.logs / "watchdog.log").read_text()
    os.kill(loop, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() not in (None, loop), what="a loop from the new watchdog")
    check_untouched(rig, trainer)


def test_both_stopped_at_once_for_long_and_continued_harm_nobody(rig: Rig, working: tuple[int, int, int]) -> None:
    watchdog, loop, trainer = working
    for pid in (watchdog, loop):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.5)  # more than three times the limit
    for pid in (watchdog, loop):
        os.kill(pid, signal.SIGCONT)
    rig.wait(lambda: rig.step() > 2)
    check_untouched(rig, trainer)
    assert (watchdog_pid(rig), rig.daemon_pid()) == (watchdog, loop)
    assert rig.events("daemon.restarted") == rig.events("watchdog.hung") == []


def test_a_loop_that_was_stopped_and_continued_blames_no_trainer(rig: Rig) -> None:
    """Where no watchdog replaces it, the loop counts what it saw itself."""
    rig.simulate(step_s=0.15)
    rig.make(files=1, watch__no_progress_s=1, watch__stuck_s=1)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 2)
    trainer = rig.trainer_pid()
    loop.send_signal(signal.SIGSTOP)
    time.sleep(3.2)
    loop.send_signal(signal.SIGCONT)
    assert trainer is not None
    check_untouched(rig, trainer)
    assert rig.events("attempt.stuck") == []


@pytest.fixture
def freezer(tmp_path: Path) -> Iterator[Path]:
    """Make a cgroup whose processes can be frozen."""
    folder = Path("/sys/fs/cgroup/freezer") / f"overnight-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs the right to make a freezer cgroup (v1)")
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    for pid in (folder / "tasks").read_text().split():
        (folder.parent / "tasks").write_text(pid)
    folder.rmdir()


def test_a_loop_that_waits_in_the_kernel_is_left_alone(rig: Rig, working: tuple[int, int, int], freezer: Path) -> None:
    """A frozen process looks as one in a slow fsync does: it cannot move, and it is no hang of ours."""
    watchdog, loop, trainer = working
    (freezer / "cgroup.procs").write_text(str(loop))
    (freezer / "freezer.state").write_text("FROZEN")
    time.sleep(3.5)
    (freezer / "freezer.state").write_text("THAWED")
    check_untouched(rig, trainer)
    assert (watchdog_pid(rig), rig.daemon_pid()) == (watchdog, loop)
    assert rig.events("daemon.restarted") == []


def test_a_full_disk_hides_no_beat(rig: Rig, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], check=True)
    small = Rig(mount / "workspace")
    try:
        small.make(watch__daemon_dead_s=1)
        small.start_watchdog()
        small.wait(lambda: small.daemon_pid() and watchdog_pid(small))
        loop = small.daemon_pid()
        with open(mount / "fill", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 65536)
            except OSError:
                pass
        time.sleep(3)
        assert small.daemon_pid() == loop
        identity = processes.identify(loop or 0)
        assert identity is not None
        first = beats.hear(identity)
        assert first is not None
        small.wait(lambda: (now := beats.hear(identity)) is not None and now.count > first.count)
    finally:
        small.end()
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_loop_that_dies_at_each_start_is_told_slows_down_and_recovers_when_the_cause_is_gone(rig: Rig) -> None:
    rig.make(files=1, watch__max_restarts=2)
    rig.wish("up")
    for path in rig.layout.state.glob("state.db*"):
        path.rename(path.with_suffix(path.suffix + ".away"))
    rig.layout.database.write_bytes(b"no database at all" * 100)
    watchdog = rig._start([sys.executable, "-m", "overnight.daemon.watchdog", str(rig.layout.root)])
    log = rig.layout.logs / "watchdog.log"
    rig.wait(lambda: log.exists() and "the next one in 2 s" in log.read_text())
    identity = processes.identify(watchdog.pid)
    assert identity is not None
    rig.wait(lambda: (heard := beats.hear(identity)) and "ended with exit code" in heard.doing)
    for path in rig.layout.state.glob("state.db*.away"):
        path.rename(path.with_name(path.name.removesuffix(".away")))
    rig.wait(rig.is_done)
    assert watchdog.poll() is None
