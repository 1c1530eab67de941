"""Versions change only where what every job has left is decided."""

from __future__ import annotations

import json
import time

import pytest

from overnight.control import candidates as control
from overnight.control import jobs
from overnight.daemon import settle
from overnight.database import candidates as stored
from overnight.disk import candidates, files, locked
from overnight.domain.errors import BusyError, FailedError
from overnight.domain.job import JobState
from version_rig import VersionRig

JUDGED = {"evaluation__holdout": 0.2, "evaluation__gate": "block"}


def until(rig: VersionRig, *states: JobState) -> None:
    """Let a loop work until the jobs are in these states."""
    context = rig.context()
    rig.tick_until(context, lambda: [job.state for job in rig.jobs()] == [*states], timeout=60)
    rig.close(context)


def harmed(rig: VersionRig) -> None:
    """Train a job that stays, and one that the gate keeps aside."""
    rig.set(**JUDGED)
    rig.train("a.jsonl", rows=20)
    rig.simulate(harm=2)
    rig.submit("harm.jsonl", rows=20)
    until(rig, JobState.SUCCEEDED, JobState.FAILED)
    rig.simulate()


@pytest.mark.parametrize("is_watched", [True, False], ids=["the loop is at it", "the loop was killed"])
def test_a_job_that_is_trained_and_not_yet_judged_is_not_published(
    rig: VersionRig, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    rig.set(**JUDGED)
    rig.train("a.jsonl", rows=20)
    rig.simulate(harm=2)
    rig.submit("harm.jsonl", rows=20)
    context = rig.context()
    with monkeypatch.context() as held:
        held.setattr(settle, "_settle", lambda *arguments: None)  # the last checkpoint is still being read
        rig.tick_until(context, lambda: [one.state for one in rig.attempts()] == ["ended"] * 2, timeout=60)
        if not is_watched:
            rig.close(context)
        else:
            lock = files.Lock(rig.layout.daemon_lock)
            assert lock.acquire(holder={"pid": 1})
        before = rig.here()
        for refused in (rig.consolidate, lambda: rig.roll_back("base")):
            with pytest.raises(BusyError, match="what becomes of it is not decided") as told:
                refused()
            assert "harm.jsonl (job 2)" in str(told.value)
        assert rig.here() == before
    if is_watched:
        lock.release()
    until(rig, JobState.SUCCEEDED, JobState.FAILED)
    assert [one["file"] for one in rig.consolidate().datasets] == ["a.jsonl"]


def test_an_accept_that_was_killed_is_brought_to_its_end_before_another_version_comes(rig: VersionRig) -> None:
    harmed(rig)
    connection = rig.connect()
    candidate = stored.find(connection, 2)
    assert candidate is not None
    stored.begin_accepting(connection, candidate)  # killed here: nothing has moved yet
    version = rig.consolidate("with it")
    assert [one["file"] for one in version.datasets] == ["a.jsonl", "harm.jsonl"]
    assert version.step == candidate.step
    connection.close()
    assert rig.jobs()[1].state is JobState.SUCCEEDED
    assert not list(rig.layout.candidates.iterdir())


def test_what_was_trained_on_one_version_is_never_accepted_on_another(rig: VersionRig) -> None:
    rig.set(**JUDGED)
    rig.train("a.jsonl", rows=20)
    rig.consolidate("the first")
    rig.set(base_model="models/v001", **JUDGED)
    rig.simulate(harm=2)
    rig.submit("harm.jsonl", rows=20)
    until(rig, JobState.SUCCEEDED, JobState.FAILED)
    rig.simulate()
    rig.roll_back("base")
    second = rig.consolidate("of the same checkpoint")  # at the same step, and as bare of checkpoints as the first
    connection = rig.connect()
    with pytest.raises(FailedError, match="the model has moved on") as told:
        control.accept(rig.layout, connection, 2, now=time.time())
    assert f"{second.id} is in use, and it was trained on v001" in str(told.value)
    rig.roll_back("v001")
    assert "is the model now" in control.accept(rig.layout, connection, 2, now=time.time())
    connection.close()


def test_where_the_first_job_on_a_version_is_kept_aside_the_version_still_locks_its_settings(rig: VersionRig) -> None:
    rig.set(**JUDGED)
    rig.train("a.jsonl", rows=20)
    rig.consolidate("the first")
    before = rig.layout.config_lock.read_bytes()
    rig.set(base_model="models/v001", **JUDGED)
    rig.simulate(harm=2)
    rig.submit("harm.jsonl", rows=20)
    until(rig, JobState.SUCCEEDED, JobState.FAILED)
    assert rig.layout.config_lock.read_bytes() == before
    rig.set(base_model="builtin:tiny", **JUDGED)
    assert locked.read(rig.layout).values["base_model"] == "models/v001"


def test_a_job_that_is_queued_again_cannot_be_accepted_and_what_lay_aside_goes(rig: VersionRig) -> None:
    harmed(rig)
    connection = rig.connect()
    jobs.retry(connection, 2, now=time.time())
    with pytest.raises(Exception, match="is not kept aside"):
        control.accept(rig.layout, connection, 2, now=time.time())
    connection.close()
    until(rig, JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert candidates.jobs(rig.layout) == set()
    assert [path.name.partition(".")[0] for path in rig.layout.trash.iterdir()] == ["000002-01"]


def test_what_a_dead_attempt_had_saved_is_known_before_its_version_is_left(rig: VersionRig) -> None:
    """Told later by the loop, it would seem to have been saved on the version that is in use by then, and be lost."""
    rig.train("a.jsonl", rows=16)
    rig.consolidate("the first")
    rig.simulate(step_s=0.05)
    rig.submit("b.jsonl", rows=400)
    context = rig.context()
    rig.tick_until(context, lambda: rig.layout.checkpoint(9).exists(), timeout=60)
    connection = rig.connect()
    connection.execute("DELETE FROM events WHERE kind = 'checkpoint.committed' AND id > (SELECT max(id) FROM events"
                       " WHERE kind = 'version.published')")  # fmt: skip
    rig.end()
    rig.simulate()
    rig.roll_back("v001")  # as it was published
    assert not rig.layout.checkpoint(9).exists()
    until(rig, JobState.SUCCEEDED, JobState.SUCCEEDED)
    connection.close()
    assert json.loads((rig.layout.checkpoint(104) / "manifest.json").read_text())["start_step"] == 4
