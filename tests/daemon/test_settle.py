"""What becomes of a job when its attempt has ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from overnight.database import queue
from overnight.disk import files
from overnight.domain.attempt import FailureKind, Outcome
from overnight.domain.job import JobState
from simulated_rig import Rig


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the undisturbed run of one file ends with."""
    rig = Rig(tmp_path / "undisturbed", monkeypatch).make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    rig.end()
    return rig.model()


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        ("kill", FailureKind.KILLED_BY_SIGNAL, "SIGKILL"),
        ("segv", FailureKind.SEGFAULT, "SIGSEGV"),
        ("exit0", FailureKind.CODE_ERROR, "exit code 0 and without a report"),
        ("exit1", FailureKind.CODE_ERROR, "exit code 1"),
        ("crash", FailureKind.CODE_ERROR, "simulated code_error"),
        ("disk", FailureKind.DISK_FULL, "simulated disk_full"),
        ("dependency", FailureKind.DEPENDENCY, "simulated dependency"),
    ],
)
def test_after_a_failed_attempt_the_job_is_resumed_and_ends_like_the_undisturbed_run(
    rig: Rig, expected: dict[str, Any], fault: str, kind: FailureKind, word: str
) -> None:
    rig.simulate(fault=f"{fault}@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert rig.model() == expected
    first, second = rig.attempts()
    assert (first.outcome, first.kind) == (Outcome.CRASHED, kind)
    assert word in first.reason
    assert (second.outcome, second.first_step) == (Outcome.COMPLETED, 5)
    assert rig.jobs()[0].charged == 0


def test_a_killed_trainer_is_launched_again_at_once(rig: Rig) -> None:
    rig.simulate(fault="kill@3:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    first, second = rig.attempts()
    assert first.ended_at is not None
    assert second.started_at - first.ended_at < 5
    assert "tried again at once" in rig.events("job.retry")[0]["message"]


def test_a_trainer_killed_while_loading_costs_its_job_nothing(rig: Rig, expected: dict[str, Any]) -> None:
    rig.simulate(fault="kill@0:3")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert [attempt.kind for attempt in rig.attempts()] == [FailureKind.KILLED_BY_SIGNAL] * 3 + [None]
    assert rig.jobs()[0].charged == 0
    assert rig.model() == expected


@pytest.mark.crash
@pytest.mark.parametrize("fault", ["kill@2:3", "segv@2:2"])
def test_a_job_killed_before_its_first_checkpoint_is_not_overtaken_in_its_pause(rig: Rig, fault: str) -> None:
    rig.simulate(fault=fault)
    rig.make(files=2)
    rig.tick_until(rig.context(), rig.is_done, timeout=40)
    assert [job.start_step for job in rig.jobs()] == [0, 16]
    first = [attempt.started_at for attempt in rig.attempts() if attempt.job == 1]
    assert len(first) > 2, "its second failure in a row brought a pause"
    assert min(attempt.started_at for attempt in rig.attempts() if attempt.job == 2) > max(first)


def test_the_same_crash_three_times_sets_the_file_aside_with_its_reason_and_the_others_train(rig: Rig) -> None:
    rig.simulate(fault="crash@3:3")
    rig.make()
    rig.drop("poison.jsonl", rows=64)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs() and rig.jobs()[0].filed)
    assert rig.jobs()[0].state is JobState.FAILED
    report = json.loads((rig.layout.failed / "poison.jsonl.report.json").read_text())
    assert "the same crash at step 3 3 times" in report["reason"]
    assert [attempt["last_step"] for attempt in report["attempts"]] == [3, 3, 3]
    assert (rig.layout.failed / "poison.jsonl").exists()
    rig.simulate()
    rig.submit("good.jsonl")
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.SUCCEEDED)


def test_a_job_s_own_failures_are_counted_and_it_is_given_up_after_max_attempts(rig: Rig) -> None:
    rig.simulate(fault="nan@3")
    rig.make(files=1, queue__max_attempts=2)
    rig.tick_until(rig.context(), lambda: rig.jobs()[0].state is JobState.FAILED)
    job = rig.jobs()[0]
    assert (job.charged, job.attempts) == (2, 2)
    assert "nan_loss" in job.reason


def test_a_retried_job_begins_a_new_life(rig: Rig) -> None:
    rig.simulate(fault="nan@3:2")
    rig.make(files=1, queue__max_attempts=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[0].state is JobState.FAILED)
    rig.tick_until(context, lambda: rig.jobs()[0].filed)
    from overnight.domain.job import JobMove

    for _ in range(2):
        queue.move(
            context.connection, 1, JobMove.RESUBMIT, expected=JobState.FAILED, reason="again", now=context.started_at
        )
        rig.tick_until(context, lambda: rig.jobs()[0].state in (JobState.FAILED, JobState.SUCCEEDED))
    assert rig.jobs()[0].state is JobState.SUCCEEDED
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.CRASHED, Outcome.CRASHED, Outcome.COMPLETED]


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_job_is_not_done_before_its_last_checkpoint_is_there_and_whole(
    rig: Rig, expected: dict[str, Any], damage: str
) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() == 16)
    report = rig.layout.attempt("000001-01") / "report.json"
    rig.wait(lambda: report.exists() and files.lock_holder(rig.layout.model_lock) is None)
    assert rig.jobs()[0].state is JobState.RUNNING, "nobody has settled it yet"
    final = rig.layout.checkpoint(16)
    if damage == "gone":
        shutil.rmtree(final)
    else:
        (final / "state.json").write_text("{}")
    rig.tick_until(context, rig.is_done)
    assert rig.model() == expected
    assert [attempt.first_step for attempt in rig.attempts()] == [0, 15]


@pytest.mark.parametrize(("wish", "state"), [("cancel", JobState.CANCELLED), ("skip", JobState.SKIPPED)])
def test_a_job_set_aside_in_the_middle_is_saved_and_the_next_one_goes_on_from_there(
    rig: Rig, wish: str, state: JobState
) -> None:
    rig.simulate(step_s=1)  # so long that the wish comes in the middle on any machine
    rig.make(files=2)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 3, timeout=60)
    rig.wish(wish, job=1, reason=f"{wish} by the operator")
    rig.simulate()
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.SUCCEEDED, timeout=60)
    first, second = rig.jobs()
    assert first.state is state
    stood = rig.attempts()[0].last_step
    assert stood is not None
    assert 3 <= stood < 16
    assert second.start_step == stood
    assert rig.model()["step"] == stood + 16
    assert len(set(rig.model()["ledger"])) == len(rig.model()["ledger"])
    assert context.wishes.skip is None
    assert context.wishes.cancel is None


def test_a_stale_skip_hits_nobody(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    rig.wish("skip", job=1)
    rig.tick_until(context, lambda: context.wishes.skip is None)
    rig.submit("next.jsonl")
    rig.tick_until(context, rig.is_done)


def test_a_wish_that_comes_too_late_does_not_take_a_finished_job_back(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() == 16)
    rig.wait(lambda: files.lock_holder(rig.layout.model_lock) is None)
    rig.wish("cancel", job=1)
    rig.tick_until(context, lambda: rig.jobs()[0].state is not JobState.RUNNING)
    assert rig.jobs()[0].state is JobState.SUCCEEDED


def test_a_pause_frees_the_device_and_its_resume_ends_like_the_undisturbed_run(
    rig: Rig, expected: dict[str, Any]
) -> None:
    rig.simulate(step_s=0.02)
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 7)
    rig.wish("paused", reason="paused by the operator")
    rig.tick_until(context, lambda: context.standing.state == "paused")
    assert rig.trainer_pid() is None
    assert rig.jobs()[0].state is JobState.QUEUED
    rig.withdraw("paused")
    rig.tick_until(context, rig.is_done)
    assert rig.model() == expected


def test_what_the_trainer_counted_is_kept_with_the_job(rig: Rig) -> None:
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    assert queue.accounting(context.connection, 1)["trained"]["steps"] == 16
    assert rig.jobs()[0].steps == 16
