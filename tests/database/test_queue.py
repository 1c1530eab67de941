"""The queue in SQLite: each move names the state it expects, and happens once, whoever tries at the same time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.database import events, overview, queue
from overnight.database.connection import connect
from overnight.domain.attempt import AttemptMove, AttemptState, FailureKind, Outcome
from overnight.domain.job import MOVES, OVERTAKEN_LIMIT, Job, JobMove, JobState, Priority


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    opened = connect(path, create=True)
    yield opened
    opened.close()


def submit(connection: sqlite3.Connection, claim: str = "c1", **changes: Any) -> Job:
    values: dict[str, Any] = {
        "file": f"{claim}.jsonl", "sha256": "a" * 64, "dataset": "d" * 64, "priority": Priority.NORMAL, "examples": 4,
        "accounting": {"rows": 4}, "rejection": None, "now": 100.0,
    }  # fmt: skip
    return queue.submit(connection, claim=claim, **{**values, **changes})


def dispatch(connection: sqlite3.Connection, job: int, *, start_step: int = 0) -> Any:
    return queue.dispatch(
        connection, job, settings={"seed": 1}, start_step=start_step, first_step=start_step, reason="its turn", now=1.0
    )


def bring_to(connection: sqlite3.Connection, job: int, state: JobState) -> None:
    """Lead a fresh job to a state along the table."""
    if state is JobState.QUEUED:
        return
    if state is JobState.CANCELLED:
        queue.move(connection, job, JobMove.CANCEL, expected=JobState.QUEUED, reason="", now=1.0)
        return
    dispatch(connection, job)
    verbs = {JobState.SUCCEEDED: JobMove.FINISH, JobState.FAILED: JobMove.GIVE_UP, JobState.SKIPPED: JobMove.SKIP}
    if state in verbs:
        queue.move(connection, job, verbs[state], expected=JobState.RUNNING, reason="", now=1.0)


def state_of(connection: sqlite3.Connection, job: int) -> JobState:
    found = queue.find(connection, job)
    assert found is not None
    return found.state


def test_the_same_claim_is_one_job_however_often_it_is_submitted(connection: sqlite3.Connection) -> None:
    assert submit(connection).id == submit(connection, file="other.jsonl").id
    assert queue.counts(connection)["queued"] == 1
    assert [event["kind"] for event in events.newest(connection)] == ["job.queued"]


def test_a_rejected_file_is_a_job_that_has_ended(connection: sqlite3.Connection) -> None:
    job = submit(connection, rejection="line 3: no messages", dataset=None)
    assert (job.state, job.reason, job.finished_at) == (JobState.REJECTED, "line 3: no messages", 100.0)
    assert queue.next_in_line(connection, now=1e9) is None


REACHED = [state for state in JobState if state is not JobState.REJECTED]


@pytest.mark.parametrize("verb", [verb for verb in JobMove if verb is not JobMove.DISPATCH])
@pytest.mark.parametrize("state", REACHED)
def test_storage_makes_exactly_the_moves_of_the_table(
    connection: sqlite3.Connection, state: JobState, verb: JobMove
) -> None:
    job = submit(connection).id
    bring_to(connection, job, state)
    assert state_of(connection, job) is state
    for expected in JobState:
        if (expected, verb) in MOVES and expected is not state:
            assert not queue.move(connection, job, verb, expected=expected, reason="no", now=2.0)
            assert state_of(connection, job) is state
    if (state, verb) in MOVES:
        assert queue.move(connection, job, verb, expected=state, reason="yes", now=2.0)
        assert state_of(connection, job) is MOVES[state, verb]


def test_a_refused_move_leaves_no_event(connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    before = overview.newest_event(connection)
    assert not queue.move(connection, job, JobMove.FINISH, expected=JobState.RUNNING, reason="no", now=2.0)
    assert overview.newest_event(connection) == before


def test_resubmit_begins_a_new_life(connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    dispatch(connection, job, start_step=16)
    queue.set_steps(connection, job, 16)
    queue.move(
        connection,
        job,
        JobMove.GIVE_UP,
        expected=JobState.RUNNING,
        reason="thrice",
        now=1.0,
        charge=True,
        not_before=9.0,
    )
    queue.set_filed(connection, job)
    queue.move(connection, job, JobMove.RESUBMIT, expected=JobState.FAILED, reason="again", now=2.0)
    found = queue.find(connection, job)
    assert found is not None
    assert (found.charged, found.settings, found.start_step, found.steps) == (0, None, None, None)
    assert (found.filed, found.not_before, found.finished_at, found.attempts) == (False, 0, None, 1)


def test_order_is_priority_then_arrival(connection: sqlite3.Connection) -> None:
    for claim, priority in [("a", "low"), ("b", "normal"), ("c", "high"), ("d", "normal"), ("e", "high")]:
        submit(connection, claim, priority=Priority(priority))
    shown = overview.next_files(connection, limit=10)
    order = []
    while (job := queue.next_in_line(connection, now=1.0)) is not None:
        order.append(job.file)
        dispatch(connection, job.id)
        queue.move(connection, job.id, JobMove.FINISH, expected=JobState.RUNNING, reason="", now=1.0)
    assert order == ["c.jsonl", "e.jsonl", "b.jsonl", "d.jsonl", "a.jsonl"] == shown


def test_low_is_not_starved_by_a_steady_stream_of_high(connection: sqlite3.Connection) -> None:
    low = submit(connection, "low", priority=Priority.LOW).id
    for number in range(3 * OVERTAKEN_LIMIT):
        submit(connection, f"high{number}", priority=Priority.HIGH)
        job = queue.next_in_line(connection, now=1.0)
        assert job is not None
        if job.id == low:
            break
        dispatch(connection, job.id)
        queue.move(connection, job.id, JobMove.FINISH, expected=JobState.RUNNING, reason="", now=1.0)
    assert number == 2 * OVERTAKEN_LIMIT


def test_a_retry_pause_is_waited_out(connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    dispatch(connection, job)
    queue.move(connection, job, JobMove.RETRY, expected=JobState.RUNNING, reason="", now=1.0, not_before=50.0)
    assert queue.next_in_line(connection, now=49.0) is None
    assert queue.next_pause_end(connection) == 50.0
    assert queue.next_in_line(connection, now=50.0) is not None


def test_only_one_job_runs(connection: sqlite3.Connection) -> None:
    first, second = submit(connection, "a").id, submit(connection, "b").id
    assert dispatch(connection, first) is not None
    assert dispatch(connection, second) is None
    assert state_of(connection, second) is JobState.QUEUED


def test_priority_is_changed_while_it_waits_only(connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    assert queue.set_priority(connection, job, Priority.HIGH, now=1.0)
    dispatch(connection, job)
    assert not queue.set_priority(connection, job, Priority.LOW, now=1.0)


def test_of_many_dispatchers_one_wins(path: Path, connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    won: list[str] = []

    def race() -> None:
        mine = connect(path)
        attempt = dispatch(mine, job)
        if attempt is not None:
            won.append(attempt.id)
        mine.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == ["000001-01"]


def end(connection: sqlite3.Connection, attempt: str, outcome: Outcome) -> bool:
    return queue.end_attempt(
        connection, attempt, outcome=outcome, kind=FailureKind.SEGFAULT, reason="r", exit_code=None, signal=11,
        last_step=5, now=3.0,
    )  # fmt: skip


def test_an_outcome_is_set_once(connection: sqlite3.Connection) -> None:
    attempt = dispatch(connection, submit(connection).id)
    assert queue.move_attempt(
        connection, attempt.id, AttemptMove.HEARTBEAT, expected=AttemptState.STARTING, reason="", now=2.0
    )
    assert end(connection, attempt.id, Outcome.CRASHED)
    assert not end(connection, attempt.id, Outcome.COMPLETED)
    found = queue.find_attempt(connection, attempt.id)
    assert found is not None
    assert (found.state, found.outcome, found.signal) == (AttemptState.ENDED, Outcome.CRASHED, 11)
    assert queue.open_attempts(connection) == []
    assert [a.id for a in queue.unsettled_attempts(connection)] == [attempt.id]
    queue.set_settled(connection, attempt.id)
    assert queue.unsettled_attempts(connection) == []


def test_a_job_that_was_begun_is_told_apart(connection: sqlite3.Connection) -> None:
    begun, _ = submit(connection, "a").id, submit(connection, "b").id
    dispatch(connection, begun, start_step=16)
    queue.set_steps(connection, begun, 20)
    queue.move(connection, begun, JobMove.RETRY, expected=JobState.RUNNING, reason="paused", now=1.0)
    assert [(one.job, one.start_step, one.steps) for one in overview.interrupted(connection)] == [(begun, 16, 20)]


def test_same_content_is_found_again(connection: sqlite3.Connection) -> None:
    first = submit(connection, "a")
    submit(connection, "b", sha256="b" * 64)
    assert [job.id for job in queue.earlier_with(connection, "a" * 64)] == [first.id]


def test_ended_jobs_wait_to_be_filed(connection: sqlite3.Connection) -> None:
    job = submit(connection).id
    bring_to(connection, job, JobState.CANCELLED)
    assert [one.id for one in queue.unfiled(connection)] == [job]
    queue.set_filed(connection, job)
    assert queue.unfiled(connection) == []


def test_the_last_word_of_each_kind_is_found(connection: sqlite3.Connection) -> None:
    events.record(connection, now=5.0, kind="disk.low", message="m")
    events.record(connection, now=6.0, kind="other", message="m")
    newest = {kind: event for kind, _, event in overview.newest_of_each_kind(connection) if kind.startswith("disk.")}
    assert [overview.told_at(connection, event)[0] for event in newest.values()] == [5.0]
    assert overview.told_at(connection, 0) is None
