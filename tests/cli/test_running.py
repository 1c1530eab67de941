"""Up, down and what is said to a running daemon: real processes, simulated trainers, one workspace a test."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overnight.control import making
from overnight.control.adding import Adding
from overnight.database import queue
from overnight.database.connection import connect, connect_readonly
from overnight.disk import config, files
from overnight.disk.layout import Layout
from overnight.domain.job import Priority
from overnight.status import snapshot, to_json

SETTINGS = [
    "train.batch_size=4", "train.threads=1", "checkpoint.every_steps=5", "queue.settle_s=0.05",
    "queue.poll_interval_s=0.05", "disk.min_free_gb=0", "queue.max_attempts=1", "watch.grace_s=5",
]  # fmt: skip
PROGRAM = [sys.executable, "-m", "overnight"]


class Place:
    """A workspace with simulated trainers."""

    def __init__(self, root: Path) -> None:
        made = making.init(root, base_model="builtin:tiny", model_name="m", assignments=SETTINGS, say=lambda text: None)
        self.layout: Layout = made.layout
        self.environment = {**os.environ, "NO_COLOR": "1"}
        self.simulate(step_s=0.001)

    def simulate(self, **options: object) -> None:
        self.environment["OVERNIGHT_SIMULATED"] = ",".join(f"{name}={value}" for name, value in options.items())

    def words(self, *words: str) -> list[str]:
        return [*PROGRAM, "-C", str(self.layout.root), *words]

    def run(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.words(*words), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
            env=self.environment,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env=self.environment,
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Look, as the command does; a process each time would be slow."""
        with closing(connect_readonly(self.layout.database)) as connection:
            return to_json(snapshot(self.layout, connection, now=time.time()))

    def add(self, *counts: int) -> None:
        """Add one file with so many rows each."""
        with closing(connect(self.layout.database)) as connection:
            adding = Adding(self.layout, connection, config.read(self.layout))
            for number, count in enumerate(counts):
                path = self.layout.root.parent / f"f{number}.jsonl"
                path.write_text("".join(json.dumps({"text": f"{number} {row}"}) + "\n" for row in range(count)))
                assert adding.add(path, priority=Priority.NORMAL, progress=None).is_queued

    def wait(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    def wait_for_step(self, step: int) -> dict[str, Any]:
        return self.wait(lambda status: status["trainer"] and status["step"] >= step)

    def jobs(self) -> list[str]:
        with closing(connect_readonly(self.layout.database)) as connection:
            return [job.state.value for job in queue.listing(connection)]

    def holders(self) -> list[str]:
        locks = {"daemon": "daemon_lock", "watchdog": "watchdog_lock", "trainer": "model_lock"}
        return [name for name, lock in locks.items() if files.lock_holder(getattr(self.layout, lock)) is not None]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "workspace")
    yield made
    made.run("down", "--now", code=None)
    assert made.holders() == []


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    """Read what a process tells until it tells this; the time-out of the test ends it."""
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), "it ended before it told that"


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=40)
    return process.returncode, out, err


def test_up_and_down(place: Place) -> None:
    said = json.loads(place.run("up", "--detach", "--json").stdout)
    status = place.status()
    assert (status["state"], status["daemon"]["pid"], status["watchdog"]["pid"]) == (
        "idle", said["daemon"]["pid"], said["watchdog"]["pid"],
    )  # fmt: skip
    refused = place.run("up", "--detach", code=75)
    assert f"pid {said['daemon']['pid']} on " in refused.stderr
    place.run("down")
    status = place.status()
    assert (status["state"], status["daemon"], status["watchdog"], status["wishes"]) == ("stopped", None, None, {})
    assert place.run("down").stdout == "nothing was running\n"


def test_of_many_ups_at_once_one_wins_and_the_others_name_it(place: Place) -> None:
    started = [place.start("up", "--detach") for _ in range(5)]
    ends = [finish(process) for process in started]
    assert sorted(code for code, _, _ in ends) == [0, 75, 75, 75, 75]
    assert all("Another daemon holds" in err for code, _, err in ends if code == 75)


def test_until_idle_is_0_when_every_job_succeeded_the_inbox_included(place: Place) -> None:
    place.add(8, 8)
    (place.layout.inbox / "dropped.jsonl").write_text('{"text": "dropped"}\n')
    done = place.run("up", "--until-idle")
    assert place.jobs() == ["succeeded"] * 3
    assert "step 5" in done.stdout
    assert done.stderr.strip() == "3 succeeded"
    assert place.holders() == []
    assert sorted(path.name for path in place.layout.done.iterdir()) == ["dropped.jsonl", "f0.jsonl", "f1.jsonl"]
    place.run("up", "--until-idle")  # nothing to do: fine, and at once


def test_until_idle_is_1_when_a_job_failed_or_a_file_was_rejected(place: Place) -> None:
    (place.layout.inbox / "bad.jsonl").write_text("{\n")
    assert place.run("up", "--until-idle", code=1).stderr.strip() == "1 rejected"
    place.simulate(fault="nan@1")
    place.add(8)
    assert place.run("up", "--until-idle", code=1).stderr.strip() == "1 failed"


def test_a_term_saves_and_ends_everything_and_up_goes_on_from_there(place: Place) -> None:
    place.simulate(step_s=0.05)
    place.add(400)
    process = place.start("up")
    place.wait_for_step(7)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert (code, place.holders()) == (0, [])
    assert "everything has ended" in err
    step = place.status()["step"]
    assert place.layout.checkpoint(step).is_dir()
    assert place.jobs() == ["queued"]
    assert list(place.layout.done.iterdir()) == []
    place.simulate(step_s=0.001)
    place.run("up", "--until-idle")
    assert place.status()["step"] == 100


def test_a_second_interrupt_is_quick(place: Place) -> None:
    place.simulate(step_s=3.0)
    place.add(400)
    process = place.start("up")
    place.wait_for_step(0)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0
    assert time.monotonic() - started < 30


def test_a_terminal_that_goes_leaves_the_run_going(place: Place) -> None:
    place.simulate(step_s=0.05)
    place.add(400)
    process = place.start("up")
    place.wait_for_step(1)
    process.send_signal(signal.SIGHUP)
    code, _, err = finish(process)
    assert (code, "goes on detached" in err) == (0, True)
    assert place.status()["state"] in ("training", "saving")


@pytest.mark.parametrize("way", ["the terminal is closed", "the shell is killed"])
def test_a_terminal_that_closes_leaves_the_run_going_and_its_logs_growing(place: Place, way: str) -> None:
    place.simulate(step_s=0.05)
    place.add(2000)
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "/bin/sh", "-c", '"$@"; true', "sh", *place.words("up")],
        stdin=slave, stdout=slave, stderr=slave, env=place.environment,
    )  # fmt: skip
    os.close(slave)
    before = place.wait_for_step(2)
    if way == "the shell is killed":
        shell.kill()  # it led the session: the kernel hangs up on what stood in its foreground
    else:
        os.close(master)
    assert shell.wait(60) != 0
    after = place.wait_for_step(before["step"] + 10)
    assert after["daemon"]["pid"] == before["daemon"]["pid"]
    assert after["trainer"]["pid"] == before["trainer"]["pid"]
    assert place.holders() == ["daemon", "watchdog", "trainer"]
    place.run("pause")
    assert "paused" in place.layout.log("daemon").read_text()
    if way == "the shell is killed":
        os.close(master)


def test_pause_frees_the_device_and_resume_goes_on(place: Place) -> None:
    place.simulate(step_s=0.02)
    place.add(400)
    place.run("up", "--detach")
    place.wait_for_step(3)
    place.run("pause")
    status = place.status()
    assert (status["state"], status["trainer"], status["queue"]["queued"]) == ("paused", None, 1)
    assert status["total"] == 100
    place.run("down")
    place.run("up", "--detach")
    assert place.wait(lambda status: status["state"] != "waiting")["state"] == "paused"
    assert place.run("resume").stdout.startswith("resumed")
    place.wait(lambda status: status["queue"]["succeeded"] == 1)


def test_skip_and_cancel_leave_the_running_job_only_and_the_next_one_runs(place: Place) -> None:
    place.simulate(step_s=0.05)
    place.add(400, 400, 8)
    place.run("up", "--detach")
    place.wait_for_step(2)
    assert json.loads(place.run("skip", "--json").stdout)["job"]["state"] == "skipped"
    place.wait(lambda status: status["job"] and status["job"]["id"] == 2 and status["trainer"])
    assert json.loads(place.run("cancel", "2", "--json").stdout)["job"]["state"] == "cancelled"
    place.wait(lambda status: status["queue"]["succeeded"] == 1)
    assert place.jobs() == ["skipped", "cancelled", "succeeded"]
    place.run("skip")  # idle: no later effect
    place.add(8)
    place.wait(lambda status: status["queue"]["succeeded"] == 2)


def test_stop_finishes_the_current_file_and_takes_no_more(place: Place) -> None:
    place.simulate(step_s=0.2)  # the wish must come while it trains, also on a loaded machine
    place.add(100, 8)
    process = place.start("up", "--until-idle")
    place.wait_for_step(1)
    place.run("stop")
    code, _, err = finish(process)
    assert (code, err.strip()) == (1, "1 succeeded; 1 still waiting")
    assert place.jobs() == ["succeeded", "queued"]
    place.run("up", "--until-idle")  # up takes work again
    assert place.jobs() == ["succeeded", "succeeded"]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.crash
def test_with_every_guard_dead_status_says_so_and_down_still_ends_the_trainer(place: Place) -> None:
    place.simulate(step_s=0.05)
    place.add(400)
    place.run("up", "--detach")
    status = place.wait_for_step(7)
    kill(status["watchdog"]["pid"])
    kill(status["daemon"]["pid"])
    status = place.wait(lambda status: status["daemon"] is None)
    if status["watchdog"] is None:  # else the loop was faster and started another one
        assert status["state"] == "dead"
        assert place.run("status", code=69).stdout.startswith("dead")
        assert "trainer" in place.holders()
    place.run("down")
    assert place.holders() == []
    status = place.status()
    assert (status["state"], place.layout.checkpoint(status["step"]).is_dir()) == ("stopped", True)


@pytest.mark.crash
def test_a_killed_daemon_is_back_while_the_foreground_stays(place: Place) -> None:
    place.simulate(step_s=0.02)
    place.add(400)
    process = place.start("up", "--until-idle")
    kill(place.wait_for_step(5)["daemon"]["pid"])
    assert finish(process)[0] == 0
    assert place.jobs() == ["succeeded"]


def test_adding_beside_a_running_daemon_gives_each_file_one_job(place: Place) -> None:
    place.run("up", "--detach")
    for _ in range(3):
        place.add(4)
    place.wait(lambda status: status["queue"]["succeeded"] == 3)
    assert place.jobs() == ["succeeded"] * 3


def test_followed_logs_and_events_go_on_as_more_comes(place: Place) -> None:
    events, logs = place.start("events", "-f"), place.start("logs", "daemon", "-f")
    place.add(4)
    place.run("up", "--until-idle")
    wait_for_line(events, "job.finish")
    wait_for_line(logs, "the daemon ends")
    for process in (events, logs):
        process.send_signal(signal.SIGINT)
    code, _, err = finish(events)
    assert (code, err) == (130, "")
    finish(logs)
