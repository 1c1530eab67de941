"""From which earlier data sets a job replays: decided once, recorded, the same for every attempt of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overnight.database import queue
from overnight.database.trained import trained_jobs
from overnight.disk import attempts
from overnight.domain.job import JobMove, JobState
from simulated_rig import Rig


def replayed(ledger: list[str]) -> list[str]:
    return [row for row in ledger if row.startswith("replayed:")]


def recorded(rig: Rig, job: int) -> Any:
    connection = rig.connect()
    try:
        return queue.accounting(connection, job).get("rehearsal")
    finally:
        connection.close()


def specs(rig: Rig) -> list[Any]:
    return [attempts.read_spec(folder) for folder in sorted(rig.layout.attempts.iterdir())]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def test_each_job_replays_its_share_evenly_from_all_that_came_before(rig: Rig) -> None:
    rig.make(files=3, rows=32, train__replay=0.5)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    jobs = rig.jobs()
    assert [job.steps for job in jobs] == [8, 16, 16]
    ledger = rig.model()["ledger"]
    assert len(ledger) == 32 + 64 + 64
    assert len(replayed(ledger)) == 64
    asked = [[source["dataset"] for source in spec.rehearsal] for spec in specs(rig)]
    assert asked == [[], [jobs[0].dataset], [jobs[0].dataset, jobs[1].dataset]]


def test_without_replay_nothing_is_recorded_and_nothing_replayed(rig: Rig) -> None:
    rig.make(files=2, rows=16)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    assert [spec.rehearsal for spec in specs(rig)] == [[], []]
    assert recorded(rig, 2) is None
    assert replayed(rig.model()["ledger"]) == []


def test_killed_in_the_middle_and_the_setting_edited_it_ends_as_if_nothing_had_happened(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Rig(tmp_path / "undisturbed", monkeypatch).make(files=2, rows=40, train__replay=0.5)
    context = undisturbed.context()
    try:
        undisturbed.tick_until(context, undisturbed.is_done, timeout=60)
        expected = undisturbed.model()
    finally:
        undisturbed.end()

    rig.make(files=1, rows=40, train__replay=0.5)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    rig.simulate(fault="kill@12:1")
    rig.submit("file1.jsonl", rows=40)
    rig.tick_until(context, lambda: len(rig.attempts()) == 2, timeout=60)
    rig.set(train__replay=0.2)
    rig.tick_until(context, rig.is_done, timeout=60)
    assert len(rig.attempts()) == 3
    assert rig.model() == expected
    assert specs(rig)[1].rehearsal == specs(rig)[2].rehearsal != []


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["edited", "gone"])
def test_a_damaged_earlier_one_is_told_and_left_out_once_for_all_attempts(rig: Rig, damage: Any) -> None:
    rig.make(files=2, rows=16, train__replay=0.5)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    first, second = (job.dataset or "" for job in rig.jobs())
    damage(rig.layout.rows(first))
    job = rig.submit("late.jsonl", rows=16)
    rig.tick_until(context, rig.is_done, timeout=60)
    assert [source["dataset"] for source in specs(rig)[2].rehearsal] == [second]
    told = rig.events("replay.left_out")
    assert [event["data"]["dataset"] for event in told] == [first]
    assert list(recorded(rig, job.id)["damaged"]) == [first]
    assert job.file in told[0]["message"]
    assert len(replayed(rig.model()["ledger"])) == 16 + 16


def test_a_job_that_is_queued_again_decides_anew(rig: Rig) -> None:
    rig.make(train__replay=0.5)
    connection = rig.connect()
    late = rig.submit("late.jsonl", rows=16)
    value = {"asked": [], "sources": [], "damaged": {}}
    queue.dispatch(connection, late.id, settings={}, start_step=8, first_step=8, reason="test", now=1.0)
    queue.set_accounting(connection, late.id, {"rehearsal": value})
    queue.move(connection, late.id, JobMove.GIVE_UP, expected=JobState.RUNNING, reason="test", now=2.0)
    assert queue.accounting(connection, late.id)["rehearsal"] == value
    queue.move(connection, late.id, JobMove.RESUBMIT, expected=JobState.FAILED, reason="test", now=3.0)
    assert "rehearsal" not in queue.accounting(connection, late.id)
    connection.close()


def test_only_jobs_trained_to_their_end_count_as_earlier(rig: Rig) -> None:
    rig.make(files=3, rows=16)
    context = rig.context()
    connection = rig.connect()
    queue.move(connection, 2, JobMove.CANCEL, expected=JobState.QUEUED, reason="test", now=1.0)
    rig.tick_until(context, lambda: all(job.state is not JobState.QUEUED for job in rig.jobs()[:1]), timeout=60)
    rig.tick_until(context, lambda: {job.state for job in rig.jobs()} == {JobState.SUCCEEDED, JobState.CANCELLED})
    queue.set_accounting(connection, 3, {"left_out": [2, 16, 17, 40]})  # 16 rows: higher numbers are replayed rows'
    found = trained_jobs(connection)
    connection.close()
    jobs = rig.jobs()
    assert [one.dataset for one in found] == [jobs[0].dataset, jobs[2].dataset]
    assert found[1].left_out == [2, 16]
