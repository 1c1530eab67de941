"""The alarm of an evaluation: it rings in what hangs, and never for time in which the process did not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from overnight.trainer.alarm import Alarm, TimeIsUp


def test_it_rings_inside_a_call_that_waits() -> None:
    began = time.monotonic()
    with pytest.raises(TimeIsUp, match="a batch of it took longer"), Alarm(total_s=60, idle_s=0.3, busy_s=60).armed():
        time.sleep(60)
    assert time.monotonic() - began < 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_computes_has_a_limit_of_its_own() -> None:
    began = time.process_time()
    with pytest.raises(TimeIsUp, match=r"took longer than 0\.5 s"), Alarm(total_s=60, idle_s=0.05, busy_s=0.5).armed():
        compute()
    assert time.process_time() - began > 0.1


def test_items_that_move_have_each_their_time_and_all_of_them_one_together() -> None:
    alarm = Alarm(total_s=1.0, idle_s=0.5, busy_s=0.5)
    with alarm.armed():
        for _ in range(5):
            alarm.next_item()
            time.sleep(0.1)
    with pytest.raises(TimeIsUp, match="it took longer than 1 s"), alarm.armed():
        move_on(alarm)


def compute() -> None:
    while True:
        pass


def move_on(alarm: Alarm) -> None:
    while True:
        alarm.next_item()
        time.sleep(0.1)


CODE = """
import time
from overnight.trainer.alarm import Alarm
with Alarm(total_s=2.0, idle_s=2.0, busy_s=2.0).armed():
    print("armed", flush=True)
    deadline = time.process_time() + 0.3
    while time.process_time() < deadline:
        pass
print("fine", flush=True)
"""


def test_a_process_that_was_stopped_for_longer_than_the_limit_is_not_blamed() -> None:
    child = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "armed\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(3.5)
        os.kill(child.pid, signal.SIGCONT)
        assert child.stdout.readline() == "fine\n"
    finally:
        child.kill()
        child.communicate()
