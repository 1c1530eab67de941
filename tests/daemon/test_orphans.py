"""No orphans, no doubles, no strangers: who is left over is ended or taken up, who only looks like it is left alone."""

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

from overnight.database import queue
from overnight.disk import files
from overnight.domain.attempt import Outcome
from overnight.launchers import processes
from simulated_rig import Rig

pytestmark = pytest.mark.crash


def kill_guards(rig: Rig) -> None:
    """Kill watchdog and loop, the watchdog first, so that nobody brings anybody back."""
    for lock in (rig.layout.watchdog_lock, rig.layout.daemon_lock):
        pid = (files.lock_holder(lock) or {}).get("pid")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: files.lock_holder(rig.layout.daemon_lock) is None)


def trainers_of(rig: Rig) -> list[int]:
    """Return every living process that looks like a trainer of this workspace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(path.parent.name)
        if b"overnight.trainer.simulated" in words and str(rig.layout.root).encode() in words[-2]:
            found += [pid] if processes.identify(pid) is not None else []
    return found


def check_whole(rig: Rig) -> None:
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 64


@pytest.fixture
def decoy(rig: Rig) -> Iterator[subprocess.Popen[bytes]]:
    """Start a stranger with a trainer's name, words and folder."""
    rig.make(files=1)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", "-P", "-m", "overnight.trainer",
         str(rig.layout.attempt("000001-01"))],
        cwd=rig.layout.root, start_new_session=True,
    )  # fmt: skip
    yield child
    assert child.poll() is None, "a stranger was signalled"
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    "victims",
    [("watchdog", "daemon"), ("daemon", "watchdog"), ("watchdog", "daemon", "trainer"), ("trainer", "daemon")],
)
def test_whoever_is_killed_in_whatever_order_up_goes_on_and_nobody_is_doubled(
    rig: Rig, decoy: subprocess.Popen[bytes], victims: tuple[str, ...]
) -> None:
    rig.simulate(step_s=0.1)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    locks = {"watchdog": rig.layout.watchdog_lock, "daemon": rig.layout.daemon_lock, "trainer": rig.layout.model_lock}
    for pid in [(files.lock_holder(locks[name]) or {}).get("pid") for name in victims]:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    if "watchdog" not in victims:
        rig.wait(rig.daemon_pid)
    else:
        rig.start_watchdog()
    most = 0
    while not rig.is_done():
        most = max(most, len([pid for pid in trainers_of(rig) if pid != decoy.pid]))
        time.sleep(0.05)
    assert most == 1
    check_whole(rig)


@pytest.mark.parametrize("arrow", ["launch", "save"])
def test_guards_killed_in_the_middle_of_a_launch_or_a_save(rig: Rig, arrow: str) -> None:
    rig.simulate(step_s=0.02, load_s=0.3)
    rig.make(files=1, checkpoint__every_steps=1)
    for _ in range(3):
        rig.start_watchdog()
        if arrow == "launch":
            rig.wait(lambda: any(attempt.handle for attempt in rig.attempts()))
        else:
            rig.wait(lambda: list(rig.layout.model.glob(".*staging*")) or rig.is_done())
        kill_guards(rig)
        assert len(trainers_of(rig)) <= 1
    rig.start_watchdog()
    rig.wait(rig.is_done, timeout=40)
    check_whole(rig)


def test_a_trainer_whose_attempt_has_ended_is_killed_by_its_identity(rig: Rig, decoy: subprocess.Popen[bytes]) -> None:
    rig.simulate(step_s=0.2)
    rig.start_loop()
    rig.wait(lambda: rig.step() >= 2)
    kill_guards(rig)
    trainer = rig.trainer_pid()
    assert trainer is not None
    os.kill(trainer, signal.SIGSTOP)
    connection = rig.connect()
    queue.end_attempt(
        connection, rig.attempts()[0].id, outcome=Outcome.LOST, kind=None, reason="as after a backup was put back",
        exit_code=None, signal=None, last_step=0, now=time.time(),
    )  # fmt: skip
    connection.close()
    rig.simulate()
    rig.start_loop()
    rig.wait(rig.is_done)
    assert processes.identify(trainer) is None
    assert "lives though its attempt has ended" in rig.events("attempt.orphan")[0]["message"]
    check_whole(rig)


def test_a_stranger_that_holds_the_model_is_waited_for_and_never_signalled(
    rig: Rig, decoy: subprocess.Popen[bytes]
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from overnight.disk.files import Lock; import os;"
        "lock = Lock(Path(sys.argv[1])); assert lock.acquire(holder={'pid': os.getpid(), 'attempt': '000001-01'});"
        "print('held', flush=True); time.sleep(600)"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", script, str(rig.layout.model_lock)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == b"held\n"
    rig.start_loop()
    rig.wait(lambda: f"another trainer (pid {stranger.pid}) still holds the model" in rig.log())
    time.sleep(0.5)
    assert stranger.poll() is None
    assert rig.attempts() == []
    stranger.kill()
    stranger.wait()
    stranger.stdout.close()
    rig.wait(rig.is_done)


@pytest.fixture
def freezer() -> Iterator[Path]:
    folder = Path("/sys/fs/cgroup/freezer") / f"overnight-orphan-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs the right to make a freezer cgroup (v1)")
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pid in (folder / "tasks").read_text().split():
            (folder.parent / "tasks").write_text(pid)
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.05)


def test_a_frozen_trainer_outlives_its_guards_blocks_a_second_one_and_goes_on_when_it_thaws(
    rig: Rig, freezer: Path
) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=1)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 2)
    trainer = rig.trainer_pid()
    (freezer / "cgroup.procs").write_text(str(trainer))
    (freezer / "freezer.state").write_text("FROZEN")
    kill_guards(rig)
    rig.start_watchdog()
    rig.wait(lambda: rig.events("attempt.adopted"))
    time.sleep(0.5)
    assert trainers_of(rig) == [trainer]
    (freezer / "freezer.state").write_text("THAWED")
    rig.wait(rig.is_done)
    assert len(rig.attempts()) == 1
    check_whole(rig)


def test_a_frozen_trainer_that_cannot_be_killed_is_told_and_the_next_one_waits_for_it(rig: Rig, freezer: Path) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=1, watch__grace_s=0.3)
    rig.start_loop()
    rig.wait(lambda: rig.step() >= 2)
    trainer = rig.trainer_pid()
    (freezer / "cgroup.procs").write_text(str(trainer))
    (freezer / "freezer.state").write_text("FROZEN")
    rig.wish("paused")
    rig.wait(lambda: rig.events("attempt.unkillable"), timeout=40)
    rig.withdraw("paused")
    time.sleep(0.5)
    assert trainers_of(rig) == [trainer]
    (freezer / "freezer.state").write_text("THAWED")
    rig.wait(rig.is_done)
    assert len(rig.attempts()) == 2
    check_whole(rig)


SITE = """
import os, pathlib, sys
flag = pathlib.Path({flag!r})
if sys.orig_argv[-2:-1] == ["overnight.daemon.admission"] and flag.exists():
    flag.unlink()
    os.kill(os.getpid(), {number})
"""


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_an_intake_that_is_stopped_or_killed_loses_no_file_and_holds_nobody_up(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    (tmp_path / "site").mkdir()
    flag = tmp_path / "flag"
    flag.touch()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(flag=str(flag), number=int(number)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    rig.make(watch__daemon_dead_s=1)
    rig.start_loop()
    rig.wait(rig.daemon_pid)
    rig.drop("a.jsonl")
    rig.drop("b.jsonl")
    rig.wait(lambda: len(rig.jobs()) == 2 and rig.is_done())
    assert not flag.exists(), "it was hit"
    if number is signal.SIGSTOP:
        assert "it is stopped" in rig.events("intake.hung")[0]["message"]


def test_handles_and_locks_of_an_earlier_boot_are_nobody_s(rig: Rig, tmp_path: Path) -> None:
    """As after a reboot: another boot id, a clock that began anew, a number that somebody else has now."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    kill_guards(rig)
    trainer = rig.trainer_pid()
    if trainer is not None:
        os.kill(trainer, signal.SIGKILL)
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    identity = processes.identify(stranger.pid)
    assert identity is not None
    connection = rig.connect()
    connection.execute("UPDATE attempts SET handle = ?", (f"local:{identity}",))
    connection.close()
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    mount = f"mount --bind {boot} /proc/sys/kernel/random/boot_id && exec unshare --time --boottime 5 --monotonic 5"
    wrapped = ["unshare", "-m", "sh", "-c", f'{mount} "$@"', "sh"]
    if subprocess.run([*wrapped, "true"], capture_output=True, check=False).returncode != 0:
        stranger.kill()
        stranger.wait()
        pytest.skip("needs mount and time namespaces")
    rig.simulate()
    rig.start_loop(wrapper=wrapped)
    rig.wait(rig.is_done)
    assert stranger.poll() is None, "the stranger with the old number was signalled"
    stranger.kill()
    stranger.wait()
    assert rig.attempts()[0].outcome in (Outcome.LOST, Outcome.CRASHED)
    check_whole(rig)
