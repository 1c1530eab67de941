"""A working attempt is watched: adopted, ended where it is stuck, and never blamed for what the loop slept through."""

from __future__ import annotations

import os
import signal
import time

import pytest

from overnight.daemon import loop, monitor
from overnight.daemon.context import Moment
from overnight.disk import attempts
from overnight.domain import health
from overnight.domain.attempt import Outcome, Phase
from overnight.domain.config import WatchSettings
from overnight.domain.job import JobState
from overnight.domain.vitals import Stillness
from simulated_rig import Rig


def test_a_trainer_that_makes_no_progress_is_ended_and_the_job_goes_on(rig: Rig) -> None:
    rig.simulate(fault="hang@8:1")
    rig.make(files=1, watch__no_progress_s=0.5, watch__grace_s=0.2)
    rig.tick_until(rig.context(), rig.is_done)
    first, second = rig.attempts()
    assert first.outcome is Outcome.HUNG
    assert "no progress while training" in first.reason
    assert second.first_step == 5
    assert len(rig.events("attempt.stuck")) == 1
    assert "is stuck: no progress while training" in rig.layout.log("anti-stuck").read_text()


def test_a_trainer_that_hangs_while_loading_is_ended_too(rig: Rig) -> None:
    rig.simulate(fault="hang@0:1")
    rig.make(files=1, watch__load_stuck_s=3, watch__grace_s=0.2)  # longer than a busy machine needs to start Python
    rig.tick_until(rig.context(), rig.is_done)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.HUNG, Outcome.COMPLETED]


def test_a_trainer_that_heeds_no_wish_is_killed_after_its_grace(rig: Rig) -> None:
    rig.simulate(fault="hang@3:1")
    rig.make(files=1, watch__grace_s=0.2)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() == 3)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    first = rig.attempts()[0]
    assert (first.outcome, first.signal) == (Outcome.PREEMPTED, signal.SIGKILL)
    assert rig.jobs()[0].state is JobState.QUEUED
    rig.withdraw("paused")
    rig.tick_until(context, rig.is_done)


def test_a_trainer_that_still_loads_leaves_at_once_when_it_is_asked(rig: Rig) -> None:
    rig.simulate(load_s=30)
    rig.make(files=1, watch__grace_s=25.0)
    context = rig.context()
    rig.tick_until(context, rig.trainer_pid)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    assert rig.attempts()[0].outcome is Outcome.PREEMPTED


def test_a_loop_that_stood_still_blames_nobody(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1, watch__no_progress_s=5.0)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 2)
    context.limits = context.limits.model_copy(update={"watch": WatchSettings(no_progress_s=5.0)})
    later = Moment(unix=time.time() + 3600, boot=attempts.boot_time() + 3600)
    monitor.watch_attempts(context, later)
    assert context.watched is not None
    assert context.watched.stop is None
    rig.tick_until(context, rig.is_done)
    assert len(rig.attempts()) == 1


@pytest.mark.parametrize("phase", [None, *Phase])
def test_each_phase_is_stuck_at_its_own_limit_and_not_before(phase: Phase | None) -> None:
    watch = WatchSettings()
    limit_s = health.limit_of(phase, watch)
    assert not health.judge(phase=phase, still=Stillness(watched_s=limit_s - 1), watch=watch).is_stuck
    verdict = health.judge(phase=phase, still=Stillness(watched_s=limit_s), watch=watch)
    assert verdict.is_stuck
    assert (phase.value if phase else "starting") in verdict.reason


def test_a_trainer_that_died_while_no_loop_ran_is_found_lost_and_its_job_goes_on(rig: Rig) -> None:
    rig.simulate(step_s=0.02)
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.trainer_pid() is None)
    another = rig.context()
    rig.tick_until(another, rig.is_done)
    first, second = rig.attempts()
    assert first.outcome is Outcome.LOST
    assert second.first_step == 5


def test_a_trainer_that_finished_while_no_loop_ran_is_believed_by_its_report(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.trainer_pid())
    rig.wait(lambda: (rig.layout.attempt("000001-01") / "report.json").exists() and not rig.trainer_pid())
    another = rig.context()
    rig.tick_until(another, rig.is_done)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.COMPLETED]


def test_a_working_trainer_is_adopted_with_no_step_lost(rig: Rig) -> None:
    rig.simulate(step_s=0.02)
    rig.make(files=1)
    rig.tick_until(rig.context(), lambda: rig.step() >= 3)
    pid = rig.trainer_pid()
    another = rig.context()
    rig.tick_until(another, lambda: rig.step() >= 6)
    assert rig.trainer_pid() == pid
    rig.tick_until(another, rig.is_done)
    assert len(rig.attempts()) == 1
    assert len(rig.events("attempt.adopted")) == 1


def test_an_attempt_that_was_never_launched_costs_nothing(rig: Rig) -> None:
    from overnight.daemon.planning import frozen
    from overnight.database import queue

    rig.make(files=1)
    context = rig.context()
    loop.read_wishes(context, Moment(unix=0, boot=0))
    settings = frozen(context.limits.model_copy(update={"base_model": "builtin:tiny"}))
    assert queue.dispatch(
        context.connection, 1, settings=settings, start_step=0, first_step=0, reason="test", now=time.time()
    )
    rig.tick_until(context, rig.is_done)
    first, second = rig.attempts()
    assert (first.outcome, second.outcome) == (Outcome.LOST, Outcome.COMPLETED)
    assert second.started_at - first.started_at < 5


def test_steps_and_commits_are_written_down_as_they_happen(rig: Rig) -> None:
    rig.simulate(step_s=0.03)
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert [event["data"]["step"] for event in rig.events("checkpoint.committed")] == [5, 10, 15, 16]


def test_a_failing_step_is_told_once_and_the_others_still_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(context: object, now: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(loop, "STEPS", (("planted", fail), *loop.STEPS))
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert len(rig.events("daemon.step_failed")) == 1
    assert "planted" in rig.events("daemon.step_failed")[0]["message"]
