"""The anti-stuck monitor against real processes: what hangs is ended with evidence, and nothing else ever is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from overnight.daemon.context import Context
from overnight.disk import paces
from overnight.domain import pace
from overnight.domain.attempt import Attempt, Outcome
from overnight.domain.pace import PATIENCE, Kind
from overnight.launchers import witness
from simulated_rig import Rig

SCALE = 0.1
"""The floors of all limits here: a step that sleeps has 1 s, one that computes 6 s, a batch of an evaluation 6 s."""


def quick(rig: Rig) -> Context:
    context = rig.context()
    context.patiences = pace.scaled(PATIENCE, SCALE)
    return context


def told(rig: Rig) -> str:
    path = rig.layout.log("anti-stuck")
    return path.read_text() if path.exists() else ""


def evidence(rig: Rig, attempt: Attempt) -> tuple[dict[str, Any], dict[str, Any], str]:
    folder = rig.layout.attempt(attempt.id)
    hang, process = (json.loads((folder / name).read_text()) for name in ("hang.json", "process.json"))
    return hang, process, (folder / "stacks.txt").read_text()


def said(rig: Rig, what: str) -> str:
    """Return what the loop says of itself and its trainer."""
    return str(json.loads(rig.layout.daemon_state.read_text())[what])


def trainer(rig: Rig) -> int:
    pid = rig.trainer_pid()
    assert pid is not None
    return pid


# what hangs


@pytest.mark.parametrize(
    ("fault", "word", "how"),
    [
        ("hang", "no progress while training", "idle"),
        ("pulse", "no progress while training", "idle"),
        ("busy", "no progress while training", "busy"),
    ],
)
def test_a_hang_is_ended_by_what_the_run_s_own_steps_take_with_evidence_and_the_same_end(
    rig: Rig, fault: str, word: str, how: str
) -> None:
    rig.simulate(step_s=0.05, fault=f"{fault}@8:1")
    rig.make(files=1, watch__grace_s=1.0)
    began = time.monotonic()
    context = rig.context()
    context.patiences = pace.scaled(PATIENCE, 0.04)
    rig.tick_until(context, rig.is_done, timeout=60)
    assert time.monotonic() - began < 60  # the ceiling is ten minutes
    first, second = rig.attempts()
    assert (first.outcome, second.outcome, second.first_step) == (Outcome.HUNG, Outcome.COMPLETED, 5)
    assert word in first.reason
    assert f", {how} (limit" in first.reason
    hang, process, stacks = evidence(rig, first)
    assert (hang["phase"], hang["step"], hang["attempt"]) == ("training", 8, first.id)
    assert hang["still"]["charged_s"] >= hang["limit_s"]
    assert process["threads"]
    assert process["limits"]
    assert process["open_files"] > 0
    assert "_misbehave" in stacks
    log = told(rig)
    order = ["is late", "is stuck", "evidence of attempt", "TERM:", "KILL:", "gone:"]
    assert [word for word in order if word not in log] == []
    assert sorted(order, key=log.index) == order


def test_a_hang_in_a_save_and_one_on_the_way_out_are_ended_and_the_older_checkpoint_is_whole(rig: Rig) -> None:
    rig.simulate(step_s=0.05, fault="hang_in_save@7:1")
    rig.make(files=1, watch__grace_s=1.0)
    context = rig.context()
    context.patiences = pace.scaled(PATIENCE, 0.01)
    rig.tick_until(context, rig.is_done, timeout=60)
    first, second = rig.attempts()
    assert first.outcome is Outcome.HUNG
    assert "no progress while saving" in first.reason
    assert second.first_step == 5


def test_a_trainer_that_is_done_and_hangs_on_its_way_out_has_done_its_job(rig: Rig) -> None:
    rig.simulate(fault="hang_at_exit")
    rig.make(files=1, watch__grace_s=1.0)
    context = rig.context()
    context.patiences = pace.scaled(PATIENCE, 0.01)
    rig.tick_until(context, rig.is_done, timeout=60)
    (only,) = rig.attempts()
    assert only.outcome is Outcome.COMPLETED
    assert "no progress while exiting" in told(rig)


def test_what_one_loop_learnt_the_next_one_knows_of_the_trainer_that_it_adopts(rig: Rig) -> None:
    rig.simulate(step_s=0.05, fault="hang@12:1")
    rig.make(files=1, watch__grace_s=1.0)
    rig.tick_until(quick(rig), lambda: rig.step() == 12 and "moves of training seen" in said(rig, "limit"))
    assert paces.read(rig.layout, pace.subject_of(rig.jobs()[0].settings or {}))[Kind.TRAINING].moves >= 5
    rig.tick_until(quick(rig), rig.is_done, timeout=60)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.HUNG, Outcome.COMPLETED]
    assert "moves of training seen" in rig.attempts()[0].reason


def test_a_trainer_that_moves_again_while_evidence_is_taken_is_left_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(process: object, log: object) -> str:
        time.sleep(4)
        return "stacks"

    monkeypatch.setattr(witness, "stacks", slowly)
    rig.simulate(step_s=0.1, slow="step@8", slow_s=2.5)
    rig.make(files=1)
    context = quick(rig)
    rig.tick_until(context, rig.is_done, timeout=60)
    assert "is stuck" in told(rig)
    assert "moves again after all" in told(rig)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.COMPLETED]
    assert len(rig.events("attempt.unstuck")) == 1


# what is stopped


@pytest.mark.parametrize("step", [0, 7])
def test_a_stopped_trainer_is_continued_within_seconds_at_default_settings(rig: Rig, step: int) -> None:
    rig.simulate(step_s=0.2, load_s=1.0)
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.trainer_pid() and rig.step() >= step)
    pid = trainer(rig)
    os.kill(pid, signal.SIGSTOP)
    stopped_at, stopped_in = time.monotonic(), rig.step()
    rig.tick_until(context, lambda: rig.step() > stopped_in, timeout=90)
    assert time.monotonic() - stopped_at < 60
    assert trainer(rig) == pid
    rig.tick_until(context, rig.is_done)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.COMPLETED]
    assert "it is continued" in told(rig)
    assert len(rig.events("attempt.woken")) == 1


def test_a_stopped_trainer_that_is_to_pause_hears_it(rig: Rig) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 6)
    os.kill(trainer(rig), signal.SIGSTOP)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")  # the grace is 30 s
    (only,) = rig.attempts()
    assert (only.outcome, only.signal) == (Outcome.PREEMPTED, None)


# what must never be ended


def has_no_blame(rig: Rig) -> bool:
    assert "is stuck" not in told(rig)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.COMPLETED]
    return True


def test_a_save_forty_times_longer_than_those_before_is_no_hang(rig: Rig) -> None:
    rig.simulate(step_s=0.05, slow="save@10", slow_s=4)
    rig.make(files=1)
    rig.tick_until(quick(rig), rig.is_done, timeout=60)
    assert has_no_blame(rig)


def test_an_evaluation_twenty_times_longer_than_the_steps_that_moves_is_no_hang(rig: Rig) -> None:
    rig.simulate(step_s=0.05, slow="evaluation@9", slow_s=1.0, items=5)
    rig.make(files=1, watch__eval_stuck_s=2.5)  # in all it takes twice as long: what counts begins anew with each item
    rig.tick_until(quick(rig), rig.is_done, timeout=60)
    assert has_no_blame(rig)


@contextmanager
def hogs(number: int) -> Iterator[None]:
    found = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in found:
            hog.kill()
            hog.wait()


def test_eight_busy_neighbours_make_nobody_a_suspect(rig: Rig) -> None:
    rig.simulate(step_s=0.0, burn_s=0.1)
    rig.make(files=1)
    context = quick(rig)
    rig.tick_until(context, lambda: rig.step() >= 3)
    with hogs(8):
        rig.tick_until(context, rig.is_done, timeout=90)
    assert has_no_blame(rig)


def test_a_trainer_that_is_stopped_four_fifths_of_the_time_is_slow_and_left_alone(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1, rows=160, checkpoint__every_steps=1000)
    context = quick(rig)
    rig.tick_until(context, lambda: rig.step() >= 22)  # what is usual is known
    pid, over = trainer(rig), threading.Event()

    def disturb() -> None:
        while not over.is_set():
            for number, seconds in ((signal.SIGSTOP, 0.8), (signal.SIGCONT, 0.2)):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    return
                over.wait(seconds)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    seen: set[str] = set()
    try:
        rig.tick_until(context, lambda: seen.add(said(rig, "slow")) or rig.is_done(), timeout=90)
    finally:
        over.set()
        disturber.join()
    assert has_no_blame(rig)
    assert any("slow: a step takes" in said and "held up from outside" in said for said in seen)
