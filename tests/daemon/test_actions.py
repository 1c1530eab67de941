"""What is done about failures by itself: smaller batches, waiting for memory, holding the queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from control_group import memory_group
from overnight.daemon import holding
from overnight.database import queue
from overnight.domain.attempt import FailureKind, Outcome
from overnight.domain.job import JobMove, JobState
from simulated_rig import Rig


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the undisturbed run of one file ends with."""
    rig = Rig(tmp_path / "undisturbed", monkeypatch).make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    rig.end()
    return rig.model()


def batches(rig: Rig) -> list[tuple[int, int]]:
    settings = [job.settings["train"] for job in rig.jobs() if job.settings]
    return [(train["batch_size"], train["gradient_accumulation_steps"]) for train in settings]


def test_a_device_without_room_gets_half_the_rows_at_once_and_the_same_rows_in_a_step(
    rig: Rig, expected: dict[str, Any]
) -> None:
    rig.simulate(fault="oom@8:1")
    rig.make(files=2)
    rig.tick_until(rig.context(), lambda: rig.jobs()[0].state is JobState.SUCCEEDED)
    assert batches(rig)[0] == (2, 2)
    (told,) = rig.events("job.retry")
    assert "with 2 x 2 instead of 4 x 1" in told["message"]
    assert told["data"]["failure"] == "cuda_oom"
    assert rig.model()["ledger"][:64] == expected["ledger"]
    first, second = rig.attempts()[:2]
    assert (first.kind, second.outcome, second.first_step) == (FailureKind.CUDA_OOM, Outcome.COMPLETED, 5)
    assert rig.jobs()[0].charged == 0
    rig.simulate()
    rig.tick_until(rig.context(), rig.is_done)
    assert batches(rig) == [(2, 2), (4, 1)], "the next job begins with what config.json says"


def test_a_device_without_room_for_one_row_sets_the_file_aside_and_the_queue_goes_on(rig: Rig) -> None:
    rig.simulate(fault="oom@8")
    rig.make(files=1, train={"batch_size": 4, "gradient_accumulation_steps": 3, "threads": 1})
    context = rig.context()
    rig.submit("long.jsonl", rows=120)
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.FAILED, timeout=60)
    assert rig.jobs()[0].state is JobState.SUCCEEDED, "it has only six steps"
    assert batches(rig)[1] == (1, 12)
    assert [attempt.kind for attempt in rig.attempts() if attempt.job == 2] == [FailureKind.CUDA_OOM] * 3
    assert rig.jobs()[1].charged == 0
    rig.simulate()
    rig.submit("good.jsonl")
    rig.tick_until(context, lambda: rig.jobs()[2].state is JobState.SUCCEEDED)


def test_before_the_first_checkpoint_the_smaller_batch_is_kept_too(rig: Rig, expected: dict[str, Any]) -> None:
    rig.simulate(fault="oom@3:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert batches(rig) == [(2, 2)]
    assert rig.model()["ledger"] == expected["ledger"]
    assert [attempt.first_step for attempt in rig.attempts()] == [0, 0]


def test_a_loop_that_dies_on_the_way_halves_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.simulate(fault="oom@8:1")
    rig.make(files=1)
    context = rig.context()
    with monkeypatch.context() as patched:
        patched.setattr(queue, "set_settled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rig.tick_until(context, rig.is_done)
    rig.tick_until(rig.context(), rig.is_done)
    assert batches(rig) == [(2, 2)]


@pytest.mark.crash
def test_a_job_that_the_kernel_kills_for_memory_waits_until_there_is_some_and_goes_on_by_itself(
    rig: Rig, expected: dict[str, Any]
) -> None:
    rig.simulate(fault="eat@8:4")
    rig.make(files=1)
    with memory_group() as group:
        group.limit(150 << 20)
        rig.start_loop(wrapper=group.entry())
        rig.wait(lambda: rig.events("dispatch.waiting"), timeout=90, what="the wait for memory")
        (told,) = rig.events("dispatch.waiting")
        assert "waiting for memory" in told["message"]
        assert [attempt.kind for attempt in rig.attempts()] == [FailureKind.HOST_OOM] * 4, (
            "the first one gained a checkpoint"
        )
        group.limit(1 << 30)
        rig.wait(rig.is_done, timeout=60, what="the end of the job")
        rig.end()
    assert rig.model() == expected
    assert rig.jobs()[0].charged == 0


def test_what_stops_every_job_at_its_start_never_uses_the_queue_up(rig: Rig) -> None:
    rig.simulate(fault="crash@0")
    rig.make(files=4)
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.attempts()) >= 4, timeout=60)
    assert {job.state for job in rig.jobs()} <= {JobState.QUEUED, JobState.RUNNING}
    assert [job.charged for job in rig.jobs()] == [0] * 4
    assert any("not their data" in event["message"] for event in rig.events("dispatch.waiting"))
    starts = [attempt.started_at for attempt in rig.attempts()]
    assert max(starts) - min(starts) > 4, "the pauses grow for the queue as a whole"
    assert {attempt.job for attempt in rig.attempts()} == {1, 2, 3, 4}, "each one is tried"
    rig.simulate()
    connection = rig.connect()
    connection.execute("UPDATE attempts SET ended_at = ended_at - 100")  # as if the pauses had passed
    connection.execute("UPDATE jobs SET not_before = 0")
    connection.close()
    rig.tick_until(context, rig.is_done, timeout=60)


def test_one_file_that_fails_at_its_start_is_set_aside_and_the_others_train(rig: Rig) -> None:
    rig.make(files=1)
    rig.simulate(fault="crash@0")
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[0].state is JobState.FAILED, timeout=30)
    rig.simulate()
    rig.submit("good.jsonl")
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.SUCCEEDED)


def test_a_hold_is_of_the_moment_and_looks_at_the_newest_failures_only(rig: Rig) -> None:
    rig.make(files=2)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    from overnight.daemon.context import Moment

    job = rig.jobs()[0]
    assert holding.why_wait(context, job, Moment(unix=time.time(), boot=0.0)) is None


def numbers(rig: Rig) -> list[int]:
    return [int(row.partition(":")[2]) + 1 for row in rig.model()["ledger"]]


def test_a_row_that_gives_no_number_is_left_out_where_that_is_the_policy(rig: Rig, expected: dict[str, Any]) -> None:
    rig.simulate(fault="row@17")
    rig.make(files=1, train={"batch_size": 4, "threads": 1, "nan_rows": "skip"})
    rig.tick_until(rig.context(), rig.is_done)
    undisturbed = [int(row.partition(":")[2]) + 1 for row in expected["ledger"]]
    assert numbers(rig) == [number for number in undisturbed if number != 17]
    (told,) = rig.events("job.retry")
    assert "without rows 17 (train.nan_rows is skip; 1 of 64 rows are left out now)" in told["message"]
    assert rig.jobs()[0].charged == 0
    connection = rig.connect()
    assert queue.accounting(connection, 1)["left_out"] == [17]
    connection.close()


def test_by_default_such_a_file_is_set_aside_after_its_tries_and_the_queue_goes_on(rig: Rig) -> None:
    rig.simulate(fault="row@17")
    rig.make(files=1, queue__max_attempts=2)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[0].state is JobState.FAILED)
    assert rig.jobs()[0].charged == 2
    rig.simulate()
    rig.submit("good.jsonl")
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.SUCCEEDED)


def test_no_number_without_a_row_to_blame_is_set_aside_whatever_the_policy(rig: Rig) -> None:
    rig.simulate(fault="nan@3")
    rig.make(files=1, train={"batch_size": 4, "threads": 1, "nan_rows": "skip"}, queue__max_attempts=2)
    rig.tick_until(rig.context(), lambda: rig.jobs()[0].state is JobState.FAILED)
    assert rig.jobs()[0].charged == 2


def test_a_job_queued_again_by_the_operator_begins_with_all_its_rows(rig: Rig) -> None:
    rig.simulate(fault="row@17")
    rig.make(files=1, train={"batch_size": 4, "threads": 1, "nan_rows": "skip"}, queue__max_attempts=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.events("job.retry"))
    rig.simulate(fault="nan@12")
    rig.tick_until(context, lambda: rig.jobs()[0].state is JobState.FAILED)
    connection = rig.connect()
    assert queue.accounting(connection, 1)["left_out"] == [17]
    queue.move(connection, 1, JobMove.RESUBMIT, expected=JobState.FAILED, reason="again", now=time.time())
    assert "left_out" not in queue.accounting(connection, 1)
    connection.close()
