"""How a job is begun, continued and resumed, and what keeps it from being launched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.daemon.planning import seed_of
from overnight.disk import attempts
from overnight.domain.attempt import FailureKind
from overnight.domain.job import JobState, Priority
from overnight.launchers.base import Exited, Launcher, Running
from overnight.launchers.choice import launcher_of
from overnight.launchers.local import launch_error
from overnight.launchers.processes import Identity
from simulated_rig import Rig


def corrupt(folder: Path) -> None:
    """Flip one bit in a file of a checkpoint."""
    path = folder / "weights.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


def newest(rig: Rig) -> Path:
    return max(rig.layout.model.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))


def test_three_files_are_trained_one_after_another_each_row_once(rig: Rig) -> None:
    rig.make(files=3)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    model = rig.model()
    assert model["step"] == 48
    assert len(model["ledger"]) == len(set(model["ledger"])) == 192
    specs = [attempts.read_spec(folder) for folder in sorted(rig.layout.attempts.iterdir())]
    assert [(spec.mode, spec.start_step) for spec in specs] == [("fresh", 0), ("continue", 16), ("continue", 32)]
    assert len({spec.seed for spec in specs}) == 3


def test_the_seed_of_a_job_depends_on_the_seed_and_its_start_and_nothing_else() -> None:
    assert seed_of(42, 16) == seed_of(42, 16)
    assert len({seed_of(42, 0), seed_of(42, 16), seed_of(43, 0)}) == 3


def test_a_job_keeps_its_settings_to_its_end_and_the_next_one_takes_the_new_ones(rig: Rig) -> None:
    rig.make(files=2, train__threads=None)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    rig.set(train__learning_rate=0.5)
    rig.withdraw("paused")
    rig.tick_until(context, rig.is_done)
    rates = [
        (spec.job, spec.mode, spec.settings["train"]["learning_rate"], spec.settings["train"]["threads"])  # type: ignore[index]
        for spec in (attempts.read_spec(folder) for folder in sorted(rig.layout.attempts.iterdir()))
    ]
    threads = rates[0][3]
    assert threads >= 1
    assert rates == [
        (1, "fresh", 2e-4, threads), (1, "resume", 2e-4, threads), (2, "continue", 0.5, 1)
    ]  # fmt: skip


def test_a_job_killed_before_its_first_checkpoint_starts_again_with_the_settings_it_had(rig: Rig) -> None:
    rig.make(files=1, checkpoint__every_steps=1000)
    rig.simulate(step_s=0.05)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[0].steps is not None and rig.trainer_pid())
    rig.set(train__learning_rate=0.5, checkpoint__every_steps=1000)
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    rig.tick_until(context, rig.is_done)
    specs = [attempts.read_spec(folder) for folder in sorted(rig.layout.attempts.iterdir())]
    assert [(spec.mode, spec.settings["train"]["learning_rate"]) for spec in specs] == [  # type: ignore[index]
        ("fresh", 2e-4), ("fresh", 2e-4)
    ]  # fmt: skip


def test_a_broken_config_stops_nothing_that_runs_and_starts_nothing_new(rig: Rig) -> None:
    rig.make(files=2)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 3)
    rig.layout.config.write_text('{"model_name": ')
    rig.tick_until(context, lambda: context.standing.state == "waiting")
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED, JobState.QUEUED]
    assert "config.json" in context.standing.reason
    assert len(rig.events("config.refused")) == 1
    rig.set()
    rig.tick_until(context, rig.is_done)


def test_a_changed_locked_key_keeps_the_next_job_waiting_and_is_named(rig: Rig) -> None:
    rig.make(files=2)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    rig.set(seed=43)
    rig.tick_until(context, lambda: context.standing.state == "waiting")
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED, JobState.QUEUED]
    assert "CRITICAL: Cannot change 'seed' while checkpoints exist" in context.standing.reason
    assert len(rig.attempts()) == 1
    rig.set()
    rig.tick_until(context, rig.is_done)


def test_a_full_disk_keeps_the_job_waiting_and_costs_it_nothing(rig: Rig) -> None:
    rig.make(files=1, disk__min_free_gb=1_000_000.0)
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "waiting")
    assert "GB are free" in context.standing.reason
    assert rig.jobs()[0].attempts == 0
    rig.set()
    rig.tick_until(context, rig.is_done)


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_ends_like_the_undisturbed_one(
    rig: Rig, tmp_path: Path
) -> None:
    other = Rig(tmp_path / "undisturbed")
    other.make(files=1)
    other_context = other.context()
    other.tick_until(other_context, other.is_done)
    expected = other.model()
    other.end()

    rig.make(files=1)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    damaged = newest(rig)
    corrupt(damaged)
    rig.withdraw("paused")
    rig.tick_until(context, rig.is_done)
    assert rig.model() == expected
    events = rig.events("checkpoint.set_aside")
    assert len(events) == 1
    assert "weights.bin differs" in events[0]["message"]
    assert [path.name.rpartition(".")[0] for path in rig.layout.trash.iterdir()] == [damaged.name]


@pytest.mark.parametrize("how", ["all damaged", "all gone"])
def test_nothing_is_ever_started_silently_from_the_base(rig: Rig, how: str) -> None:
    rig.make(files=2)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[0].state is JobState.SUCCEEDED)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    for folder in list(rig.layout.model.glob("checkpoint-*")):
        corrupt(folder) if how == "all damaged" else shutil.rmtree(folder)
    rig.withdraw("paused")
    launched = len(rig.attempts())
    rig.tick_until(context, lambda: context.standing.state == "waiting" and "CRITICAL" in context.standing.reason)
    assert "Nothing is started from the base model" in context.standing.reason
    assert len(rig.attempts()) == launched
    assert rig.events("dispatch.waiting")


def test_a_job_whose_last_step_was_saved_is_finished_without_a_launch(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    connection = rig.connect()
    connection.execute("UPDATE jobs SET state = 'queued', finished_at = NULL")
    connection.close()
    rig.tick_until(context, rig.is_done)
    assert len(rig.attempts()) == 2
    assert not (rig.layout.attempts / "000001-02").exists()
    assert len(rig.model()["ledger"]) == 64


def test_a_half_trained_job_goes_first_whatever_else_has_arrived(rig: Rig) -> None:
    rig.make(files=1)
    rig.simulate(step_s=0.02)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    rig.wish("paused")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    rig.submit("urgent.jsonl", priority=Priority.HIGH)
    rig.withdraw("paused")
    rig.tick_until(context, rig.is_done)
    assert [attempt.job for attempt in sorted(rig.attempts(), key=lambda a: a.started_at)] == [1, 1, 2]
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"]) == 128


def test_another_trainer_on_the_model_is_waited_for_and_named(rig: Rig) -> None:
    from overnight.disk.files import Lock

    rig.make(files=1)
    lock = Lock(rig.layout.model_lock)
    assert lock.acquire(holder={"pid": 4711})
    context = rig.context()
    rig.tick_until(context, lambda: "pid 4711" in context.standing.reason)
    assert rig.jobs()[0].attempts == 0
    lock.release()
    rig.tick_until(context, rig.is_done)


def test_stop_finishes_the_current_file_and_takes_no_other(rig: Rig) -> None:
    rig.make(files=2)
    rig.simulate(step_s=0.02, fault="kill@12:1")
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 3)
    rig.wish("stopped", reason="stopped by the operator")
    rig.tick_until(context, lambda: context.standing.state == "stopped")
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED, JobState.QUEUED]
    rig.withdraw("stopped")
    rig.tick_until(context, rig.is_done)


def test_settings_are_read_as_json_never_guessed(rig: Rig) -> None:
    rig.make(files=1)
    rig.layout.config.unlink()
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "waiting")
    assert "config.json is missing" in context.standing.reason
    assert json.dumps(rig.jobs()[0].settings) == "null"


def test_a_clock_that_was_set_back_holds_no_retry_up(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    context.connection.execute("UPDATE jobs SET not_before = ?", (context.started_at + 365 * 86_400,))
    rig.tick_until(context, rig.is_done)


class Refusing:
    """A launcher whose first launches fail as they do where no more processes are allowed."""

    def __init__(self, real: Launcher, *, times: int) -> None:
        self.real = real
        self.times = times

    def start(self, folder: Path, *, workspace: Path, record: Callable[[str], None]) -> str:
        self.times -= 1
        if self.times >= 0:
            raise launch_error(OSError(errno.EAGAIN, "Resource temporarily unavailable"), what="The trainer")
        return self.real.start(folder, workspace=workspace, record=record)

    def poll(self, handle: str) -> Running | Exited:
        return self.real.poll(handle)

    def stop(self, handle: str) -> None:
        self.real.stop(handle)

    def kill(self, handle: str) -> None:
        self.real.kill(handle)

    def process(self, handle: str) -> Identity | None:
        return self.real.process(handle)

    def wake(self, handle: str) -> None:
        self.real.wake(handle)

    def exit_descriptor(self, handle: str) -> int | None:
        return self.real.exit_descriptor(handle)


def test_a_trainer_that_cannot_be_started_is_told_and_tried_again_and_costs_the_job_nothing(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    launcher = Refusing(launcher_of("local"), times=2)
    context.launcher_of = lambda kind: launcher
    rig.tick_until(context, rig.is_done)
    refused = rig.attempts()[:2]
    assert [attempt.kind for attempt in refused] == [FailureKind.DEPENDENCY] * 2
    assert "EAGAIN" in refused[0].reason
    assert rig.jobs()[0].charged == 0
    assert any("EAGAIN" in event["message"] for event in rig.events("job.retry"))
