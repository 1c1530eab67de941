"""Loop and watchdog as processes: one of each, each keeps the other alive, both end when they are asked to."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from overnight.database import intents
from overnight.disk import files
from overnight.domain.attempt import Outcome
from overnight.launchers import processes
from simulated_rig import Rig

pytestmark = pytest.mark.crash


def intents_of(rig: Rig) -> set[str]:
    connection = rig.connect()
    try:
        return set(intents.standing(connection))
    finally:
        connection.close()


def watchdog_pid(rig: Rig) -> int | None:
    seen = files.lock_holder(rig.layout.watchdog_lock)
    return seen.get("pid") if seen else None


def test_of_twenty_started_at_once_exactly_one_runs_and_the_others_name_it(rig: Rig) -> None:
    rig.make()
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "overnight.daemon", str(rig.layout.root)], stderr=subprocess.PIPE, text=True
        )
        for _ in range(20)
    ]
    losers: list[subprocess.Popen[str]] = []
    deadline = time.monotonic() + 60
    while len(losers) < 19:
        losers = [child for child in children if child.poll() is not None]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (winner,) = [child for child in children if child not in losers]
    for loser in losers:
        assert loser.returncode == 75
        assert loser.stderr is not None
        said = loser.stderr.read()
        assert f"held by pid {winner.pid}" in said or f"pid {winner.pid} on " in said
        assert "since 20" in said
        loser.stderr.close()
    time.sleep(0.2)
    assert winner.poll() is None
    winner.send_signal(signal.SIGTERM)
    assert winner.wait(10) == 0
    assert winner.stderr is not None
    winner.stderr.close()


def test_a_deleted_lock_file_is_made_again_and_lets_no_second_loop_in(rig: Rig) -> None:
    rig.make()
    first = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == first.pid)
    rig.layout.daemon_lock.unlink()
    second = rig.start_loop()
    assert second.wait(60) == 75
    rig.wait(lambda: rig.daemon_pid() == first.pid)
    assert len(rig.events("daemon.lock_deleted")) == 1
    assert first.poll() is None


def test_one_signal_saves_and_ends_and_the_next_start_goes_on(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    rig.wish("up")
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 6)
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(60) == 0
    (attempt,) = rig.attempts()
    assert attempt.outcome is Outcome.PREEMPTED
    assert rig.layout.checkpoint(attempt.last_step or 0).is_dir(), "the step that it stood at was saved"
    assert "up" not in intents_of(rig)
    assert rig.trainer_pid() is None
    rig.simulate()
    rig.start_loop()
    rig.wait(rig.is_done)
    assert rig.attempts()[1].first_step == attempt.last_step
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 64


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_the_other_signals_that_end_a_program_do_the_same(rig: Rig, number: signal.Signals) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 1)
    loop.send_signal(number)
    assert loop.wait(60) == 0
    assert rig.attempts()[0].outcome is Outcome.PREEMPTED


def test_a_second_signal_is_quick_and_still_safe(rig: Rig) -> None:
    rig.simulate(fault="hang@7:1")
    rig.make(files=1)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() == 7)
    loop.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert loop.poll() is None, "the trainer does not leave, and has its grace"
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(5) == 0
    rig.start_loop()
    rig.wait(rig.is_done)
    assert len(set(rig.model()["ledger"])) == 64


@pytest.mark.parametrize("now", [False, True], ids=["down", "down --now"])
def test_down_ends_everything_and_takes_its_wishes_back(rig: Rig, now: bool) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    watchdog = rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    rig.wish("down", now=now)
    assert watchdog.wait(60) == 0
    assert rig.daemon_pid() is None
    assert rig.trainer_pid() is None
    assert intents_of(rig) == set()
    (attempt,) = rig.attempts()
    assert attempt.outcome is Outcome.PREEMPTED
    assert rig.layout.checkpoint(attempt.last_step or 0).exists() is not now or attempt.last_step in (5, 10, 15)


def test_a_killed_loop_is_back_within_seconds_and_its_trainer_goes_on_untouched(rig: Rig) -> None:
    rig.simulate(step_s=0.4)
    rig.make(files=1)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 2)
    killed, trainer = rig.daemon_pid(), rig.trainer_pid()
    assert killed is not None
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() not in (None, killed))
    assert time.monotonic() - began < 20
    assert rig.trainer_pid() == trainer
    rig.wait(rig.is_done)
    assert len(rig.attempts()) == 1
    assert len(rig.events("daemon.restarted")) == 1
    assert "SIGKILL" in rig.events("daemon.restarted")[0]["message"]


def test_a_killed_watchdog_is_started_again_by_the_loop(rig: Rig) -> None:
    rig.make()
    watchdog = rig.start_watchdog()
    loop = rig.wait(rig.daemon_pid)
    rig.wait(lambda: watchdog_pid(rig) == watchdog.pid)
    watchdog.kill()
    watchdog.wait()
    other = rig.wait(lambda: watchdog_pid(rig))
    assert other != watchdog.pid
    assert rig.daemon_pid() == loop
    os.kill(loop, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() not in (None, loop))
    rig.wish("down")
    rig.wait(lambda: watchdog_pid(rig) is None and rig.daemon_pid() is None)


def test_two_watchdogs_never_act_together(rig: Rig) -> None:
    rig.make()
    first = rig.start_watchdog()
    rig.wait(lambda: watchdog_pid(rig) == first.pid)
    second = rig.start_watchdog()
    assert second.wait(10) == 75
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert rig.daemon_pid() is None, "the signal was passed on to the loop"


def test_a_deleted_watchdog_lock_leaves_one_watchdog(rig: Rig) -> None:
    rig.make()
    first = rig.start_watchdog()
    rig.wait(lambda: watchdog_pid(rig) == first.pid and rig.daemon_pid())
    rig.layout.watchdog_lock.unlink()
    rig.wait(lambda: watchdog_pid(rig) is not None)
    one = watchdog_pid(rig)
    time.sleep(1.5)
    assert watchdog_pid(rig) == one
    assert (first.poll() is None) == (one == first.pid)


def test_a_file_system_without_locks_is_refused(rig: Rig) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace to break a system call")
    rig.make()
    child = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK",
         sys.executable, "-m", "overnight.daemon", str(rig.layout.root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 73
    assert "kernel locks" in child.stderr


def test_a_folder_removed_under_the_daemon_is_made_again(rig: Rig) -> None:
    rig.make()
    rig.start_loop()
    rig.wait(rig.daemon_pid)
    shutil.rmtree(rig.layout.inbox)
    shutil.rmtree(rig.layout.processing.parent)
    rig.wait(lambda: rig.layout.inbox.is_dir() and rig.layout.processing.is_dir())
    rig.drop("a.jsonl", rows=4)
    rig.wait(lambda: rig.jobs() and rig.is_done() and rig.jobs()[0].filed)


def test_a_watchdog_that_nobody_wants_ends(rig: Rig) -> None:
    rig.make()
    child = rig._start([sys.executable, "-m", "overnight.daemon.watchdog", str(rig.layout.root)])
    assert child.wait(10) == 0


def test_a_workspace_that_is_moved_away_ends_its_daemon_and_goes_on_where_it_lies_now(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 6)
    elsewhere = rig.layout.root.with_name("elsewhere")
    rig.layout.root.rename(elsewhere)
    assert loop.wait(30) == 73
    elsewhere.rename(rig.layout.root)
    assert "was moved or removed" in rig.log()
    rig.simulate()
    rig.start_loop()
    rig.wait(rig.is_done)
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 64


def test_a_workspace_that_was_moved_goes_on_at_its_new_place_with_the_same_bytes(rig: Rig) -> None:
    rig.simulate(fault="hang@7:1")  # it stands still in the middle of a job
    rig.make(files=1, rows=80, watch__grace_s=0.5)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 7 and rig.trainer_pid(), timeout=60)
    there = Rig(rig.layout.root.with_name("elsewhere"))
    rig.layout.root.rename(there.layout.root)
    assert loop.wait(60) == 73
    try:
        there.wait(lambda: there.trainer_pid() is None, timeout=120)
        there.simulate()
        there.start_loop()
        there.wait(there.is_done, timeout=60)
        assert not rig.layout.root.exists(), "nothing was made anew at the old place"
        model = there.model()
    finally:
        there.end()
    other = Rig(rig.layout.root.with_name("undisturbed")).make(files=1, rows=80)
    try:
        other.start_loop()
        other.wait(other.is_done, timeout=60)
        assert model == other.model()
    finally:
        other.end()


def test_a_workspace_that_is_removed_ends_its_daemon_its_watchdog_and_its_trainer(rig: Rig) -> None:
    rig.simulate(fault="hang@3")
    rig.make(files=1, watch__grace_s=0.5)
    watchdog = rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 3)
    trainer, loop = rig.trainer_pid(), rig.daemon_pid()
    assert trainer is not None
    assert loop is not None
    rig.layout.root.rename(rig.layout.root.with_name("away"))
    shutil.rmtree(rig.layout.root.with_name("away"), ignore_errors=True)
    assert watchdog.wait(30) == 2
    rig.wait(lambda: processes.identify(loop) is None and processes.identify(trainer) is None)


def test_a_deleted_database_ends_the_daemon_loudly_and_the_trainer_saves(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 6)
    for path in rig.layout.state.glob("state.db*"):
        path.unlink()
    assert loop.wait(30) == 73
    assert "state.db was moved or removed" in rig.log()
    assert rig.trainer_pid() is None
    assert rig.layout.checkpoint(rig.step()).is_dir()


def test_a_folder_that_is_no_workspace_is_refused_and_nothing_is_made(rig: Rig, tmp_path: object) -> None:
    child = rig
    done = subprocess.run(
        [sys.executable, "-m", "overnight.daemon", str(child.layout.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no workspace" in done.stderr
    assert not child.layout.root.exists()


def test_the_guards_are_small_and_load_no_torch(rig: Rig) -> None:
    rig.make()
    rig.start_watchdog()
    rig.wait(lambda: rig.daemon_pid() and watchdog_pid(rig))
    time.sleep(1.0)
    total = 0.0
    for pid in (rig.daemon_pid(), watchdog_pid(rig)):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            facts = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
        total += int(facts["Pss"].split()[0]) / 1024
        with open(f"/proc/{pid}/maps") as file:
            assert "libtorch" not in file.read()
    assert total < 60, f"{total:.1f} MB"


def test_the_status_files_are_always_whole_and_the_step_never_goes_back(rig: Rig) -> None:
    import json

    rig.simulate(step_s=0.005)
    rig.make(files=3)
    rig.start_loop()
    rig.wait(lambda: rig.layout.status_file.exists())
    last, reads = -1, 0
    deadline = time.monotonic() + 30
    while not rig.is_done() and time.monotonic() < deadline:
        for _ in range(50):
            value = json.loads(rig.layout.status_file.read_text())
            json.loads(rig.layout.daemon_state.read_text())
            assert value["step"] >= last
            last, reads = value["step"], reads + 1
    assert reads > 100
    rig.wait(lambda: json.loads(rig.layout.status_file.read_text())["step"] == 48)


def test_a_daemon_whose_database_is_locked_for_a_while_goes_on_afterwards(rig: Rig) -> None:
    rig.make(files=1)
    other = sqlite3.connect(rig.layout.database, isolation_level=None)
    loop = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == loop.pid)
    other.execute("BEGIN IMMEDIATE")
    time.sleep(1.0)
    other.execute("ROLLBACK")
    other.close()
    rig.wait(rig.is_done)
