"""Whatever the wall clock says: nothing expires, nobody is blamed, and the run ends like the undisturbed one."""

from __future__ import annotations

import calendar
import datetime
import itertools
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from clock_shim import YEAR_S, Clock
from overnight.disk import checkpoints
from overnight.domain.job import JobState
from simulated_rig import Rig

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the same two jobs leave under an ordinary clock."""
    other = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace").make(files=2)
    other.simulate(step_s=0)
    other.start_loop()
    other.wait(other.is_done)
    model = other.model()
    other.end()
    return model


def check_calm(rig: Rig, undisturbed: dict[str, Any]) -> None:
    """Check that nothing at all happened but the training."""
    assert [attempt.number for attempt in rig.attempts()] == [1, 1], "nobody was ended or launched again"
    assert rig.events("attempt.stuck") == []
    assert rig.events("daemon.restarted") == []
    assert rig.events("watchdog.started") == []
    assert rig.model() == undisturbed


def test_the_clock_of_the_test_is_the_clock_of_the_processes(clock: Clock) -> None:
    clock.show(1000.0)
    done = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], capture_output=True, text=True, check=True
    )
    assert 1000.0 <= float(done.stdout) < 1060.0
    assert time.time() > 1e9, "the test's own clock stays"


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["a year on", "a year back"])
def test_a_jump_of_the_clock_in_the_middle_of_a_run_changes_nothing(
    rig: Rig, clock: Clock, undisturbed: dict[str, Any], jump_s: float
) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=2)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    clock.shift(jump_s)
    rig.wait(rig.is_done)
    check_calm(rig, undisturbed)


def test_a_clock_a_year_on_lets_nothing_expire(rig: Rig, clock: Clock) -> None:
    rig.simulate(step_s=0)
    rig.make(files=1, checkpoint__keep=100)
    loop = rig.start_loop()
    rig.wait(lambda: rig.is_done() and rig.jobs()[0].filed)
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(60) == 0
    newest = rig.layout.checkpoint(16)
    (newest / "state.json").write_text("{}")  # it is set aside: into the trash
    kept = {path.name for path in rig.layout.model.iterdir()} - {newest.name}
    clock.shift(YEAR_S)
    rig.submit("another.jsonl")
    rig.start_loop()
    rig.wait(rig.is_done)
    assert [job.state for job in rig.jobs()] == [JobState.SUCCEEDED] * 2
    assert len(list(rig.layout.trash.glob("*checkpoint-16*"))) == 1, "what lies in the trash has not aged a year"
    assert kept <= {path.name for path in rig.layout.model.iterdir()}
    assert rig.layout.attempt("000001-01").is_dir()


def test_a_lock_that_looks_a_year_old_is_still_a_lock(rig: Rig, clock: Clock) -> None:
    rig.make()
    first = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == first.pid)
    clock.shift(YEAR_S)
    second = rig.start_loop()
    assert second.wait(60) == 75
    assert first.poll() is None


def test_a_machine_that_starts_in_1970_trains_and_keeps_its_order_when_the_time_comes(rig: Rig, clock: Clock) -> None:
    clock.show(1000.0)
    rig.simulate(step_s=0.02)
    rig.make()
    rig.start_watchdog()
    for number in range(2):
        rig.drop(f"early{number}.jsonl", rows=8)
        rig.wait(lambda count=number + 1: len(rig.jobs()) == count)
    clock.shift(0.0)  # the time has come over the network
    rig.drop("late.jsonl", rows=8)
    rig.wait(lambda: len(rig.jobs()) == 3 and rig.is_done() and all(job.filed for job in rig.jobs()))
    jobs = rig.jobs()
    assert [job.file for job in jobs] == ["early0.jsonl", "early1.jsonl", "late.jsonl"]
    assert [job.id for job in jobs] == [1, 2, 3]
    assert jobs[0].submitted_at < 2000 < 1e9 < jobs[2].submitted_at
    begun = [event["data"]["job"] for event in rig.events("job.dispatch")]
    assert begun == sorted(begun), "trained in the order of arrival"
    events = rig.events()
    assert all(one["id"] < other["id"] for one, other in itertools.pairwise(events))
    assert len({attempt.id for attempt in rig.attempts()}) == 3
    assert len(rig.model()["ledger"]) == len(set(rig.model()["ledger"])) == 24


@pytest.mark.parametrize(
    ("moment", "zone"),
    [
        ((2026, 10, 25, 1, 0, 0), "CET-1CEST,M3.5.0,M10.5.0/3"),  # 03:00 summer time: it is 02:00 again
        ((2026, 3, 8, 5, 0, 0), "CST5CDT,M3.2.0/0,M11.1.0/1"),  # midnight: it is 01:00 of the next day at once
    ],
    ids=["the hour comes twice", "midnight, and the hour is missing"],
)
def test_a_night_on_which_the_hour_or_the_day_changes_is_a_night_like_any_other(
    rig: Rig, clock: Clock, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, moment: tuple[int, ...],
    zone: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("TZ", zone)
    border = float(calendar.timegm(moment))
    rig.simulate(step_s=0.06)
    rig.make(files=2)
    clock.show(border - 3600)
    rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 6)
    clock.show(border - 0.3)
    rig.wait(rig.is_done)
    check_calm(rig, undisturbed)
    times = [event["at"] for event in rig.events() if event["kind"] != "job.queued"]  # those are the test's own
    assert times[0] < border < times[-1], "it really happened in the middle"
    assert times == sorted(times)
    names = sorted(path.name for path in rig.layout.logs.iterdir())
    assert not any(character.isdigit() for name in names for character in name), "one log, whatever the day"
    lines = [line for line in rig.layout.log("daemon").read_text().splitlines() if line[:2] == "20"]
    stamps = [datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S%z") for line in lines]
    assert len(stamps) > 3
    assert stamps == sorted(stamps), "log lines carry their offset: an hour that comes twice is told apart"


def test_another_time_zone_for_each_process_changes_no_record(
    rig: Rig, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=2)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 6)
    os.kill(loop.pid, signal.SIGKILL)
    loop.wait()
    monkeypatch.setenv("TZ", "Pacific/Pago_Pago")
    rig.start_loop()
    rig.wait(rig.is_done)
    assert rig.model() == undisturbed
    times = [event["at"] for event in rig.events()]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 600
    newest, _ = checkpoints.newest_verified(rig.layout.model)
    assert newest is not None
    assert newest.manifest is not None
    assert abs(newest.manifest.created_at - time.time()) < 600
