"""Cancel, retry, move, skip in every state that a job can be in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from overnight.control import jobs
from overnight.database import events, intents, queue
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, OvernightError, UsageError
from overnight.domain.job import Job, JobMove, JobState, Priority

Submit = Callable[..., Job]


def bring_to(connection: sqlite3.Connection, job: int, state: JobState) -> None:
    verbs = {JobState.SUCCEEDED: JobMove.FINISH, JobState.FAILED: JobMove.GIVE_UP, JobState.SKIPPED: JobMove.SKIP}
    if state is JobState.CANCELLED:
        queue.move(connection, job, JobMove.CANCEL, expected=JobState.QUEUED, reason="", now=1.0)
    elif state is not JobState.QUEUED:
        queue.dispatch(connection, job, settings={}, start_step=0, first_step=0, reason="", now=1.0)
        if state in verbs:
            queue.move(connection, job, verbs[state], expected=JobState.RUNNING, reason="", now=1.0)


def state_of(connection: sqlite3.Connection, job: int) -> JobState:
    return jobs.find(connection, job).state


CANCEL = [
    (JobState.QUEUED, JobState.CANCELLED),
    (JobState.RUNNING, JobState.RUNNING),  # a wish: the daemon carries it out
    (JobState.CANCELLED, JobState.CANCELLED),
    (JobState.SUCCEEDED, UsageError),
    (JobState.FAILED, UsageError),
    (JobState.SKIPPED, UsageError),
]


@pytest.mark.parametrize(("state", "result"), CANCEL)
def test_cancel(
    layout: Layout, connection: sqlite3.Connection, submit: Submit, state: JobState, result: JobState | type[Exception]
) -> None:
    job = submit().id
    bring_to(connection, job, state)
    if isinstance(result, JobState):
        jobs.cancel(layout, connection, job, now=2.0)
        assert state_of(connection, job) is result
    else:
        with pytest.raises(result):
            jobs.cancel(layout, connection, job, now=2.0)
        assert state_of(connection, job) is state
    wished = intents.standing(connection).get("cancel")
    assert (wished is not None and wished.value["job"] == job) == (state is JobState.RUNNING)


RETRY = [
    (JobState.QUEUED, JobState.QUEUED),
    (JobState.RUNNING, JobState.RUNNING),
    (JobState.CANCELLED, JobState.QUEUED),
    (JobState.FAILED, JobState.QUEUED),
    (JobState.SKIPPED, JobState.QUEUED),
    (JobState.SUCCEEDED, UsageError),
]


@pytest.mark.parametrize(("state", "result"), RETRY)
def test_retry(
    connection: sqlite3.Connection, submit: Submit, state: JobState, result: JobState | type[Exception]
) -> None:
    job = submit().id
    bring_to(connection, job, state)
    if isinstance(result, JobState):
        jobs.retry(connection, job, now=2.0)
        assert state_of(connection, job) is result
    else:
        with pytest.raises(result):
            jobs.retry(connection, job, now=2.0)


def test_a_rejected_file_is_mended_not_retried(connection: sqlite3.Connection, submit: Submit) -> None:
    job = submit(rejection="line 1").id
    with pytest.raises(UsageError, match="cannot be queued again"):
        jobs.retry(connection, job, now=2.0)


MOVE = [
    (JobState.QUEUED, None),
    (JobState.RUNNING, BusyError),
    (JobState.SUCCEEDED, UsageError),
    (JobState.CANCELLED, UsageError),
]


@pytest.mark.parametrize(("state", "error"), MOVE)
def test_move(
    connection: sqlite3.Connection, submit: Submit, state: JobState, error: type[OvernightError] | None
) -> None:
    job = submit().id
    bring_to(connection, job, state)
    if error is None:
        jobs.move(connection, job, Priority.HIGH, now=2.0)
        assert jobs.find(connection, job).priority is Priority.HIGH
    else:
        with pytest.raises(error):
            jobs.move(connection, job, Priority.HIGH, now=2.0)


@pytest.mark.parametrize("number", [0, -1, 99, 10**30])
def test_a_number_without_a_job_is_wrong_usage(connection: sqlite3.Connection, number: int) -> None:
    with pytest.raises(UsageError, match="no job"):
        jobs.find(connection, number)


def test_skip_names_the_very_job_and_a_second_one_changes_nothing(
    layout: Layout, connection: sqlite3.Connection, submit: Submit
) -> None:
    job = submit().id
    bring_to(connection, job, JobState.RUNNING)
    jobs.skip(layout, connection, now=2.0)
    jobs.skip(layout, connection, now=3.0)
    wish = intents.standing(connection)["skip"]
    assert (wish.value["job"], wish.at) == (job, 2.0)
    assert [event["kind"] for event in events.newest(connection)].count("operator.skip") == 1


def test_an_idle_skip_has_no_effect_now_or_later(
    layout: Layout, connection: sqlite3.Connection, submit: Submit
) -> None:
    submit()
    assert jobs.skip(layout, connection, now=2.0).message.startswith("nothing to skip")
    assert "skip" not in intents.standing(connection)


def test_waiting_for_a_job_to_leave_ends_when_it_has_left(
    layout: Layout, connection: sqlite3.Connection, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit().id
    assert jobs.wait_until_left(layout, connection, job).state is JobState.QUEUED
    bring_to(connection, job, JobState.RUNNING)
    monkeypatch.setattr(jobs, "wait_for", lambda condition, limit_s: condition())
    with pytest.raises(BusyError, match="has not left yet"):
        jobs.wait_until_left(layout, connection, job)
