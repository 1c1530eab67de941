"""Pause, stop and skip are wishes: they survive whoever was to carry them out, and hit only what they meant."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.control import jobs as operator
from overnight.control import wishes
from overnight.database import intents
from overnight.domain.job import JobState
from overnight.status import snapshot
from simulated_rig import Rig

pytestmark = pytest.mark.crash

LONG = 60


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "workspace", monkeypatch)
    made.simulate(fault="hang@7:1")  # the first attempt stands still in the middle of the first job
    made.make(files=3, rows=64, checkpoint__every_steps=5, watch__grace_s=0.5)
    yield made
    made.end()


def kill_everybody(rig: Rig) -> None:
    """Kill loop and trainer, the loop first: it must not see the trainer die."""
    for pid in (rig.daemon_pid(), rig.trainer_pid()):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() is None and rig.trainer_pid() is None, timeout=LONG)


def struck(rig: Rig, verb: str) -> float:
    """Start the loop; in the middle of a job wish something, and kill everybody at once. Return when it was wished."""
    loop = rig.start_loop()
    rig.wait(lambda: rig.trainer_pid() and rig.step() >= 7, timeout=LONG)
    at = time.time()
    connection = rig.connect()
    if verb == "skip":
        operator.skip(rig.layout, connection, now=at)
    else:
        getattr(wishes, verb)(rig.layout, connection, now=at)
    connection.close()
    kill_everybody(rig)
    loop.wait(LONG)
    rig.simulate(step_s=0)
    return at


def states(rig: Rig) -> list[str]:
    return [job.state.value for job in rig.jobs()]


def test_a_pause_survives_the_death_of_loop_and_trainer_and_is_told_since_when(rig: Rig) -> None:
    at = struck(rig, "pause")
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "paused", timeout=LONG)
    rig.tick_until(context, lambda: states(rig) == ["queued"] * 3, timeout=LONG)
    rig.drop("more.jsonl", rows=8)  # files that come meanwhile are safe
    rig.tick_until(context, lambda: len(rig.jobs()) == 4, timeout=LONG)
    connection = rig.connect()
    shot = snapshot(rig.layout, connection, now=time.time())
    assert (shot.standing.state, shot.standing.since) == ("paused", at)
    assert shot.queue["queued"] == 4
    assert len(rig.attempts()) == 1
    wishes.resume(rig.layout, connection, now=time.time())
    connection.close()
    rig.tick_until(context, rig.is_done, timeout=LONG)
    assert len(rig.model()["ledger"]) == len(set(rig.model()["ledger"])) == 3 * 64 + 8


def test_a_stop_survives_finishes_the_current_file_and_takes_no_other(rig: Rig) -> None:
    struck(rig, "stop")
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "stopped", timeout=LONG)
    assert states(rig) == ["succeeded", "queued", "queued"]
    for _ in range(5):
        rig.tick_until(context, lambda: True)
    assert states(rig) == ["succeeded", "queued", "queued"]


def test_a_skip_survives_and_hits_the_job_that_was_meant_and_no_other(rig: Rig) -> None:
    struck(rig, "skip")
    context = rig.context()
    rig.tick_until(context, lambda: JobState.SUCCEEDED in {job.state for job in rig.jobs()}, timeout=LONG)
    rig.tick_until(context, lambda: states(rig) == ["skipped", "succeeded", "succeeded"], timeout=LONG)
    rig.tick_until(context, lambda: wishes_left(rig) == set(), timeout=LONG)


def wishes_left(rig: Rig) -> set[str]:
    connection = rig.connect()
    try:
        return set(intents.standing(connection))
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_while_paused_a_signal_and_a_stop_are_obeyed_and_the_pause_stays(rig: Rig, number: signal.Signals) -> None:
    rig.wish("paused")
    loop = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == loop.pid, timeout=LONG)
    connection = rig.connect()
    wishes.stop(rig.layout, connection, now=time.time())
    connection.close()
    assert wishes_left(rig) == {"paused", "stopped"}
    loop.send_signal(number)
    assert loop.wait(LONG) == 0
    assert wishes_left(rig) == {"paused", "stopped"}, "both hold for the next start"
    assert rig.attempts() == []
    connection = rig.connect()
    wishes.resume(rig.layout, connection, now=time.time())
    wishes.resume(rig.layout, connection, now=time.time())  # a second one leaves nothing behind
    connection.close()
    assert wishes_left(rig) == set()
