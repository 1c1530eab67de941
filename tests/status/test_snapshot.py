"""The picture is true in every state of a workspace, and its step never goes back but to a recovery's checkpoint."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overnight.database import events, intents, queue
from overnight.database.connection import connect
from overnight.disk import attempts, checkpoints, files, workspace
from overnight.disk.layout import Layout
from overnight.domain.attempt import Attempt, AttemptMove, AttemptState, Heartbeat, Outcome, Phase
from overnight.domain.checkpoint import Manifest
from overnight.domain.job import JobMove, JobState, Priority
from overnight.status import Snapshot, snapshot, to_json, training_status
from overnight.status.guards import guards

NOW = 1_000_000.0
KEYS = {
    "schema", "state", "phase", "step", "total", "loss", "eval_loss", "learning_rate", "epoch", "tokens_per_second",
    "eta_s", "file", "job", "attempt", "checkpoint", "pid", "updated_at",
}  # fmt: skip


@dataclass
class World:
    """A workspace whose parts are put by hand where daemon and trainer would put them."""

    layout: Layout
    connection: sqlite3.Connection
    locks: dict[str, files.Lock] = field(default_factory=dict)

    def look(self, *, now: float = NOW) -> Snapshot:
        return snapshot(self.layout, self.connection, now=now)

    def hold(self, *names: str) -> None:
        for name in names:
            path = getattr(self.layout, f"{name}_lock")
            self.locks[name] = files.Lock(path)
            assert self.locks[name].acquire(holder={"pid": 77, "host": "h", "since": NOW - 60})

    def let_go(self, *names: str) -> None:
        for name in names:
            self.locks.pop(name).release()

    def wish(self, name: str, *, at: float = NOW - 100, **value: Any) -> None:
        intents.wish(self.connection, name, {"reason": f"{name} by somebody", **value}, now=at)

    def tell(self, state: str, *, reason: str = "told", quiet_s: float = 0.0) -> None:
        files.write_json_atomically(
            self.layout.daemon_state,
            {
                "schema": 1, "pid": 77, "boot_id": attempts.boot_id(), "state": state, "reason": reason,
                "since": NOW - 10, "updated_at": NOW - quiet_s, "beat": attempts.boot_time() - quiet_s,
            },
        )  # fmt: skip

    def submit(self, name: str = "a") -> int:
        return queue.submit(
            self.connection, claim=name, file=f"{name}.jsonl", sha256="s", dataset="d", priority=Priority.NORMAL,
            examples=64, accounting={}, rejection=None, now=NOW,
        ).id  # fmt: skip

    def launch(self, job: int, *, start_step: int = 0, first_step: int | None = None) -> Attempt:
        attempt = queue.dispatch(
            self.connection, job, settings={}, start_step=start_step, reason="its turn", now=NOW,
            first_step=start_step if first_step is None else first_step,
        )  # fmt: skip
        assert attempt is not None
        self.layout.attempt(attempt.id).mkdir()
        return attempt

    def beat(self, attempt: Attempt, *, step: int, total: int | None, phase: Phase = Phase.TRAINING) -> None:
        queue.move_attempt(
            self.connection, attempt.id, AttemptMove.HEARTBEAT, expected=AttemptState.STARTING, reason="", now=NOW
        )
        attempts.write_heartbeat(
            self.layout.attempt(attempt.id),
            Heartbeat(
                attempt=attempt.id, pid=77, phase=phase, progress=step, step=step, total=total, loss=1.5,
                eval_loss=None, learning_rate=1e-4, epoch=0.5, tokens_per_second=100.0, eta_s=12.0, checkpoint=None,
                phase_since=90.0, beat_at=100.0, written_at=NOW - 1, boot_id="b",
            ),
        )  # fmt: skip

    def commit(self, step: int, *, job: int = 1, start_step: int = 0, attempt: str = "x") -> Path:
        staging = self.layout.root / "staging"
        staging.mkdir()
        (staging / "weights").write_bytes(b"w" * 100)
        manifest = Manifest(
            step=step, job=job, job_step=step - start_step, job_total=16, start_step=start_step, attempt=attempt,
            dataset_id="d", created_at=NOW, model_name="m", method="lora", locked={}, data_cursor={}, fingerprints={},
            environment={}, files={},
        )  # fmt: skip
        checkpoints.commit(staging, self.layout.checkpoint(step), manifest)
        return self.layout.checkpoint(step)

    def end(self, attempt: Attempt, verb: JobMove, *, outcome: Outcome = Outcome.COMPLETED) -> None:
        queue.end_attempt(
            self.connection, attempt.id, outcome=outcome, kind=None, reason="", exit_code=0, signal=None, last_step=1,
            now=NOW,
        )  # fmt: skip
        queue.move(self.connection, attempt.job, verb, expected=JobState.RUNNING, reason="", now=NOW)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    layout = workspace.new_layout(tmp_path / "workspace")
    workspace.create(layout)
    connection = connect(layout.database, create=True)
    workspace.finish(layout, {"model_name": "m", "base_model": "b"})
    made = World(layout, connection)
    yield made
    made.let_go(*list(made.locks))
    connection.close()


# states


def test_a_new_workspace_is_stopped_and_says_how_to_start(world: World) -> None:
    shot = world.look()
    assert (shot.state, shot.step, shot.total) == ("stopped", 0, 0)
    assert "overnight up" in shot.standing.reason
    assert (shot.daemon, shot.watchdog, shot.trainer, shot.job, shot.checkpoint) == (None, None, None, None, None)


def test_a_daemon_that_should_run_and_does_not_is_dead_with_step_and_age(world: World) -> None:
    world.wish("up")
    world.commit(40)
    world.tell("training", quiet_s=95)
    shot = world.look()
    assert shot.state == "dead"
    assert "last step 40, last heard of 95 s ago" in shot.standing.reason
    world.hold("watchdog")
    assert "the watchdog (pid 77) starts it again" in world.look().standing.reason
    world.wish("up", at=NOW - 2, again=True)
    assert (world.look().state, world.look().standing.reason) == ("waiting", "the daemon is starting")


def test_paused_stopped_and_stopping_say_since_when(world: World) -> None:
    world.hold("daemon")
    world.wish("up")
    world.tell("idle")
    assert (world.look().state, world.look().standing.since) == ("idle", NOW - 10)
    world.wish("stopped", at=NOW - 300)
    assert (world.look().state, world.look().standing.since) == ("stopped", NOW - 300)
    world.wish("paused", at=NOW - 200)
    assert (world.look().state, world.look().standing.since) == ("paused", NOW - 200)
    world.wish("down", at=NOW - 100, now=False)
    assert (world.look().state, world.look().standing.since) == ("stopping", NOW - 100)


def test_paused_is_told_with_the_loop_down(world: World) -> None:
    world.wish("paused")
    shot = world.look()
    assert shot.state == "paused"
    assert "not running" in shot.standing.reason


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (Phase.LOADING, "loading"),
        (Phase.TRAINING, "training"),
        (Phase.EVALUATING, "evaluating"),
        (Phase.SAVING, "saving"),
        (Phase.MERGING, "saving"),
        (Phase.EXITING, "saving"),
    ],
)
def test_a_living_trainer_is_what_its_heartbeat_says(world: World, phase: Phase, state: str) -> None:
    world.hold("daemon", "model")
    world.wish("up")
    attempt = world.launch(world.submit())
    assert world.look().state == "loading"
    world.beat(attempt, step=3, total=16, phase=phase)
    shot = world.look()
    assert shot.state == state
    assert shot.standing.since == NOW - 11
    assert shot.trainer is not None
    assert (shot.trainer.pid, shot.trainer.state) == (77, phase.value)


def test_a_trainer_that_is_gone_is_not_said_to_train(world: World) -> None:
    world.hold("daemon")
    world.wish("up")
    attempt = world.launch(world.submit())
    world.beat(attempt, step=3, total=16)
    shot = world.look()
    assert (shot.state, shot.trainer, shot.step) == ("waiting", None, 3)


def test_a_wish_shows_while_the_trainer_still_works(world: World) -> None:
    world.hold("daemon", "model")
    world.wish("up")
    attempt = world.launch(world.submit())
    world.beat(attempt, step=3, total=16)
    world.wish("stopped")
    assert "stops after this file" in world.look().standing.reason
    world.wish("paused")
    assert (world.look().state, "pausing" in world.look().standing.reason) == ("stopping", True)


def test_waiting_says_what_for(world: World) -> None:
    world.hold("daemon")
    world.wish("up")
    job = world.submit()
    assert world.look().state == "waiting"
    world.tell("waiting", reason="the disk is nearly full")
    assert world.look().standing.reason == "the disk is nearly full"
    world.tell("idle")
    attempt = world.launch(job)
    world.end(attempt, JobMove.RETRY, outcome=Outcome.CRASHED)
    world.connection.execute("UPDATE jobs SET not_before = ?", (NOW + 30,))
    assert "tried again in 30 s" in world.look().standing.reason


def test_a_silent_daemon_is_shown_as_silent(world: World) -> None:
    world.hold("daemon")
    world.tell("idle", quiet_s=95)
    shot = world.look()
    assert shot.daemon is not None
    assert shot.daemon.state == "silent for 95 s"


# step and total


def test_step_and_total_over_two_jobs_a_kill_and_a_pause(world: World) -> None:
    seen: list[tuple[int, int]] = []

    def look() -> None:
        shot = world.look()
        seen.append((shot.step, shot.total))

    world.hold("daemon")
    world.wish("up")
    first, second = world.submit("a"), world.submit("b")
    look()
    attempt = world.launch(first)
    look()
    world.beat(attempt, step=0, total=None, phase=Phase.LOADING)
    look()
    world.beat(attempt, step=9, total=16)
    queue.set_steps(world.connection, first, 16)
    world.commit(5, job=first)
    look()
    world.end(attempt, JobMove.RETRY, outcome=Outcome.CRASHED)  # killed at 9: back to the checkpoint at 5
    look()
    attempt = world.launch(first, first_step=5)
    look()
    world.beat(attempt, step=5, total=None, phase=Phase.LOADING)
    look()
    world.beat(attempt, step=16, total=16)
    world.commit(16, job=first)
    look()
    world.end(attempt, JobMove.FINISH)
    look()
    attempt = world.launch(second, start_step=16)
    look()
    world.beat(attempt, step=20, total=32)
    queue.set_steps(world.connection, second, 16)
    world.commit(20, job=second, start_step=16)
    look()
    world.end(attempt, JobMove.RETRY, outcome=Outcome.PREEMPTED)  # paused
    look()
    assert seen == [
        (0, 0), (0, 0), (0, 0), (9, 16), (5, 16), (5, 16), (5, 16), (16, 16), (16, 16), (16, 16), (20, 32), (20, 32),
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1}', "\0\0"])
def test_a_damaged_heartbeat_neither_breaks_the_picture_nor_takes_the_step_back(world: World, damage: str) -> None:
    world.hold("daemon", "model")
    world.wish("up")
    attempt = world.launch(world.submit())
    world.beat(attempt, step=9, total=16)
    files.write_json_atomically(world.layout.status_file, training_status(world.look()))
    (world.layout.attempt(attempt.id) / "heartbeat.json").write_text(damage)
    shot = world.look()
    assert (shot.state, shot.step, shot.total) == ("training", 9, 16)
    world.layout.status_file.write_text(damage)
    assert world.look().step == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"state": 3}', '{"state": "idle", "reason": "", "since": "x"}'])
def test_a_damaged_daemon_file_does_not_break_the_picture(world: World, damage: str) -> None:
    world.hold("daemon")
    world.layout.daemon_state.write_text(damage)
    assert world.look().state == "idle"


def test_the_picture_is_taken_without_config_model_or_logs(world: World) -> None:
    world.layout.config.unlink()
    world.layout.model.rmdir()
    assert world.look().state == "stopped"


# checkpoints


def test_a_checkpoint_is_called_verified_only_while_its_content_is(world: World) -> None:
    folder = world.commit(900)
    world.commit(3200)
    shot = to_json(world.look())
    assert shot["checkpoint"] == {"step": 3200, "path": str(world.layout.checkpoint(3200)), "verified": True}
    (world.layout.checkpoint(3200) / "weights").write_bytes(b"x" * 100)
    assert to_json(world.look())["checkpoint"]["verified"] is False
    (world.layout.checkpoint(3200) / "weights").write_bytes(b"x" * 99)  # now it is not even complete
    assert to_json(world.look())["checkpoint"]["path"] == str(folder)


# answers


def test_the_status_file_has_exactly_the_promised_keys(world: World) -> None:
    world.hold("daemon", "model")
    attempt = world.launch(world.submit())
    world.beat(attempt, step=3, total=16)
    value = training_status(world.look())
    assert set(value) == KEYS
    assert (value["step"], value["total"], value["loss"], value["job"], value["attempt"], value["pid"]) == (
        3, 16, 1.5, 1, "000001-01", 77,
    )  # fmt: skip
    json.dumps(value, allow_nan=False)


def test_the_answer_has_the_promised_fields_and_the_last_loss_stays(world: World) -> None:
    world.hold("daemon", "watchdog", "model")
    world.wish("up")
    job = world.submit()
    attempt = world.launch(job)
    world.beat(attempt, step=3, total=16)
    value = to_json(world.look())
    assert value["job"] == {
        "id": 1, "file": "a.jsonl", "priority": "normal", "attempt": 1, "step": 3, "total": 16,
    }  # fmt: skip
    assert value["daemon"] == {"pid": 77, "state": "running", "since": "1970-01-12T13:45:40Z"}
    assert value["watchdog"] == {"pid": 77, "state": "running"}
    assert value["trainer"] == {"pid": 77, "phase": "training"}
    assert {"queued", "running", "succeeded", "failed", "rejected", "cancelled"} <= set(value["queue"])
    world.let_go("model")
    world.commit(3, attempt=attempt.id)
    world.end(attempt, JobMove.FINISH)
    value = to_json(world.look())
    assert (value["loss"], value["tokens_per_second"], value["job"]) == (1.5, None, None)


def test_the_next_files_stand_in_the_order_of_dispatch(world: World) -> None:
    for name in "abc":
        world.submit(name)
    queue.set_priority(world.connection, 3, Priority.HIGH, now=NOW)
    assert world.look().next_files == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_the_version_is_the_one_in_use_not_the_newest(world: World) -> None:
    for name in ("v999", "v1000", "v002"):
        (world.layout.versions / name).mkdir()
        (world.layout.versions / name / "manifest.json").touch()
    assert world.look().version is None
    lock = {"schema": 1, "locked": {"base_model": "models/v999"}, "version": "v999", "step": 7, "fingerprints": {}}
    world.layout.config_lock.write_text(json.dumps(lock))
    assert world.look().version == "v999"


def test_every_guard_stands_on_the_board(world: World) -> None:
    world.hold("daemon")
    board = guards(world.layout, world.connection, world.look())
    states = {guard["name"]: guard["state"] for guard in board}
    assert states["daemon"] == "running"
    assert states["watchdog"] == "not running"
    assert {"anti-stuck", "checkpoints", "config lock", "disk"} <= set(states)
    assert all({"name", "state", "since", "last_acted", "note"} <= set(guard) for guard in board)


def test_the_board_tells_when_and_why_a_guard_acted_and_is_off_without_a_daemon(world: World) -> None:
    why = "the daemon was killed: it is stopped (by a signal)"
    events.record(world.connection, now=NOW - 5, kind="daemon.restarted", message=why, level="warning")
    board = {guard["name"]: guard for guard in guards(world.layout, world.connection, world.look())}
    assert board["watchdog"]["why"] == why
    assert board["watchdog"]["last_acted"] is not None
    assert board["queue"]["why"] is None
    assert {board[name]["state"] for name in ("anti-stuck", "crash detector", "intake", "disk")} == {"off: no daemon"}
