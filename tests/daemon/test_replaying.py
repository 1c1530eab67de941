"""Steps that a recovery trains again are compared with what was told of them: an inexact one is told, once."""

from __future__ import annotations

import json
import os
import signal

from simulated_rig import Rig


def kill_at(rig: Rig, step: int) -> None:
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert rig.step() >= step


def test_an_exact_recovery_is_not_talked_about(rig: Rig) -> None:
    rig.simulate(fault="kill@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert [attempt.first_step for attempt in rig.attempts()] == [0, 5]
    assert rig.events("attempt.not_exact") == []


def test_the_first_step_that_comes_out_otherwise_is_told_loudly_and_once(rig: Rig) -> None:
    rig.simulate(step_s=0.1, fault="perturb@7:1")
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 9)
    kill_at(rig, 9)
    rig.tick_until(context, lambda: rig.events("attempt.not_exact"))
    assert not rig.is_done(), "it is told while the attempt works, not hours later"
    context = rig.context()  # another loop tells nothing again
    rig.tick_until(context, rig.is_done)
    (event,) = rig.events("attempt.not_exact")
    assert event["level"] == "error"
    told = event["data"]
    assert (told["attempt"], told["step"], told["name"]) == ("000001-02", 8, "loss")
    assert told["before"] != told["again"]
    assert repr(told["before"]) in event["message"]
    assert repr(told["again"]) in event["message"]
    assert "the 2 steps before it were equal" in event["message"]


def test_an_attempt_that_dies_while_loading_hides_no_difference(rig: Rig) -> None:
    rig.simulate(step_s=0.02, fault="perturb@7:1")
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 9)
    rig.simulate(load_s=30)
    kill_at(rig, 9)
    rig.tick_until(context, lambda: len(rig.attempts()) == 2 and rig.trainer_pid())
    rig.simulate()
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    rig.tick_until(context, rig.is_done)
    (event,) = rig.events("attempt.not_exact")
    assert (event["data"]["attempt"], event["data"]["step"]) == ("000001-03", 8)


def test_numbers_of_other_work_are_not_compared(rig: Rig) -> None:
    rig.simulate(step_s=0.02, fault="perturb@7:1")
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 9)
    path = rig.layout.attempt("000001-01") / "spec.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "threads": spec["threads"] + 1}))
    kill_at(rig, 9)
    rig.tick_until(context, rig.is_done)
    assert len(rig.attempts()) == 2
    assert rig.events("attempt.not_exact") == []
