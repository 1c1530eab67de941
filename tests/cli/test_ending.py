"""How everything ends: by down, by signals to each member, with guards that hang, on a disk that takes no wish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overnight.disk import files
from overnight.domain.attempt import Outcome
from overnight.launchers import processes
from overnight.launchers.choice import SIMULATED
from simulated_rig import Rig

pytestmark = pytest.mark.crash


def overnight(
    rig: Rig, *words: str, code: int = 0, wrapper: tuple[str, ...] = (), timeout: float = 90
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "overnight", "-C", str(rig.layout.root), *words],
        capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, SIMULATED: rig.options, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{rig.log()[-3000:]}"
    return done


def pid_of(lock: Path) -> int | None:
    return (files.lock_holder(lock) or {}).get("pid")


def is_all_gone(rig: Rig) -> bool:
    layout = rig.layout
    return all(
        files.lock_holder(lock) is None for lock in (layout.daemon_lock, layout.watchdog_lock, layout.model_lock)
    )


def training(rig: Rig, *, step_s: float = 0.1, steps: int = 6, **settings: float) -> None:
    """Bring up guards and a trainer at work."""
    rig.simulate(step_s=step_s)
    rig.make(files=1, **settings)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= steps and pid_of(rig.layout.watchdog_lock))


def check_resume(rig: Rig) -> None:
    rig.simulate()
    rig.start_watchdog()
    rig.wait(rig.is_done)
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 64


@pytest.mark.parametrize("words", [("down",), ("down", "--now")], ids=" ".join)
def test_down_ends_a_stopped_daemon_that_nobody_watches_and_its_trainer(rig: Rig, words: tuple[str, ...]) -> None:
    training(rig, watch__grace_s=2)
    watchdog, loop = pid_of(rig.layout.watchdog_lock), rig.daemon_pid()
    assert watchdog is not None
    assert loop is not None
    os.kill(loop, signal.SIGSTOP)
    os.kill(watchdog, signal.SIGKILL)
    overnight(rig, *words)
    assert is_all_gone(rig)
    assert processes.identify(loop) is None
    check_resume(rig)


def test_down_with_a_dead_daemon_saves_the_trainer_s_work(rig: Rig) -> None:
    training(rig)
    watchdog, loop = pid_of(rig.layout.watchdog_lock), rig.daemon_pid()
    assert watchdog is not None
    assert loop is not None
    os.kill(watchdog, signal.SIGKILL)
    os.kill(loop, signal.SIGKILL)
    overnight(rig, "down")
    assert is_all_gone(rig)
    assert rig.layout.checkpoint(rig.step()).is_dir(), "the step that it stood at was saved"


def test_up_replaces_guards_that_were_both_stopped_and_the_trainer_goes_on(rig: Rig) -> None:
    training(rig, step_s=3.0, steps=1, watch__daemon_dead_s=1)
    old, trainer = {pid_of(rig.layout.watchdog_lock), rig.daemon_pid()}, rig.trainer_pid()
    for pid in old:
        os.kill(pid or 0, signal.SIGSTOP)
    rig.wait(lambda: "stopped by a signal" in json.loads(overnight(rig, "status", "--json").stdout)["daemon"]["state"])
    shown = overnight(rig, "status", "--guards").stdout
    assert "blind: daemon stopped by a signal" in shown
    assert "overnight up replaces both" in overnight(rig, "status").stdout
    overnight(rig, "up", "--detach")
    assert old & {pid_of(rig.layout.watchdog_lock), rig.daemon_pid()} == set()
    assert rig.trainer_pid() == trainer
    rig.wait(lambda: rig.events("attempt.adopted"))
    assert len(rig.events("daemon.hung")) == 2


def test_of_twenty_ups_at_once_one_wins_and_the_others_name_who_is_there(rig: Rig) -> None:
    rig.make()
    ups = [
        subprocess.Popen(
            [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), "up", "--detach"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, SIMULATED: rig.options},
        )
        for _ in range(20)
    ]  # fmt: skip
    said = [(up.communicate(timeout=90), up.returncode) for up in ups]
    codes = sorted(code for _, code in said)
    assert codes == [0] + [75] * 19, said
    assert all("pid " in errors for (_, errors), code in said if code == 75)
    rig.wait(lambda: pid_of(rig.layout.watchdog_lock) and rig.daemon_pid())
    time.sleep(1.5)
    guards = [path for path in Path("/proc").glob("[0-9]*/cmdline") if is_guard_of(rig, path)]
    assert len(guards) == 2


def is_guard_of(rig: Rig, path: Path) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return str(rig.layout.root).encode() in words and any(word.startswith(b"overnight.daemon") for word in words)


@pytest.mark.parametrize(
    ("member", "number"),
    [
        ("watchdog", signal.SIGTERM),
        ("watchdog", signal.SIGHUP),
        ("watchdog", signal.SIGQUIT),
        ("daemon", signal.SIGQUIT),
    ],
)
def test_a_signal_that_ends_programs_saves_and_ends_everything(rig: Rig, member: str, number: signal.Signals) -> None:
    training(rig)
    pid = pid_of(rig.layout.watchdog_lock if member == "watchdog" else rig.layout.daemon_lock)
    os.kill(pid or 0, number)
    rig.wait(lambda: is_all_gone(rig))
    (attempt,) = rig.attempts()
    assert attempt.outcome is Outcome.PREEMPTED
    assert attempt.exit_code in (75, None)
    assert rig.layout.checkpoint(attempt.last_step or 0).is_dir()
    check_resume(rig)


def test_the_signals_without_a_meaning_harm_nobody(rig: Rig) -> None:
    training(rig)
    before = [pid_of(rig.layout.watchdog_lock), rig.daemon_pid(), rig.trainer_pid()]
    for pid in before:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid or 0, number)
    step = rig.step()
    rig.wait(lambda: rig.step() > step or rig.is_done())
    time.sleep(0.5)
    assert [pid_of(rig.layout.watchdog_lock), rig.daemon_pid()] == before[:2]
    rig.wait(rig.is_done)
    assert len(rig.attempts()) == 1


def small_disk(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], check=True)
    return mount


@pytest.mark.parametrize("words", [("down",), ("down", "--now")], ids=" ".join)
def test_down_works_on_a_full_disk_and_pause_says_what_does(tmp_path: Path, words: tuple[str, ...]) -> None:
    mount = small_disk(tmp_path)
    small = Rig(mount / "workspace")
    try:
        training(small, step_s=0.3, watch__grace_s=2)
        fill(mount)
        refused = overnight(small, "pause", code=73)
        assert "overnight down works all the same" in refused.stderr
        done = overnight(small, *words)
        assert "asked by signals" in done.stdout
        assert is_all_gone(small)
        (mount / "fill").unlink()
        small.simulate()
        small.start_watchdog()
        small.wait(small.is_done)
        assert len(set(small.model()["ledger"])) == 64
    finally:
        small.end()
        subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(mount: Path) -> None:
    with open(mount / "fill", "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


def test_down_works_where_the_command_sees_a_read_only_disk(rig: Rig) -> None:
    view = ("unshare", "-m", "sh", "-c", f'mount --bind -o ro {rig.layout.root} {rig.layout.root} && exec "$@"', "sh")
    training(rig)
    if subprocess.run([*view, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs mount namespaces")
    assert "overnight down" in overnight(rig, "pause", code=73, wrapper=view).stderr
    overnight(rig, "down", wrapper=view)
    assert is_all_gone(rig)
    check_resume(rig)


def test_until_idle_says_what_it_waits_for_and_gives_up_where_nobody_watches(rig: Rig) -> None:
    rig.simulate(step_s=0.3)
    rig.make(files=1, rows=4000)  # the end of the job is far away
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    overnight(rig, "down")
    for path in rig.layout.model.glob("checkpoint-*/weights.bin"):
        path.write_bytes(b"damaged")
    rig.set(watch__no_progress_s=2)
    done = overnight(rig, "up", "--until-idle", code=1)
    assert "waiting: CRITICAL: No checkpoint can be trusted" in done.stderr
    assert "given up after" in done.stderr
    assert is_all_gone(rig)
