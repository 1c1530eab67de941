"""What an attempt died of, told by the kernel: real deaths, a real loop."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from control_group import memory_group
from overnight.disk import attempts, endings
from overnight.domain.attempt import AttemptState, FailureKind, Outcome
from overnight.domain.job import JobState
from simulated_rig import Rig


@pytest.mark.crash
def test_a_trainer_killed_by_the_kernel_for_want_of_memory_is_no_anonymous_kill(rig: Rig) -> None:
    rig.simulate(fault="eat@8:1")
    rig.make(files=1)
    with memory_group() as group:
        group.limit(150 << 20)
        rig.start_loop(wrapper=group.entry())
        rig.wait(rig.is_done, timeout=60, what="the end of the job")
        rig.end()
    first, second = rig.attempts()
    assert (first.outcome, first.kind, first.signal) == (Outcome.CRASHED, FailureKind.HOST_OOM, signal.SIGKILL)
    assert "want of memory" in first.reason
    assert (second.outcome, second.first_step) == (Outcome.COMPLETED, 5)
    assert rig.jobs()[0].charged == 0
    ended = endings.read_ended(rig.layout.attempt(first.id))
    assert ended is not None
    assert ended.facts.oom_kills == 1
    assert ended.facts.memory_limit_bytes == 150 << 20


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        ("xfsz", FailureKind.DISK_FULL, "limit on file sizes"),
        ("xcpu", FailureKind.KILLED_BY_SIGNAL, "processor time"),
        ("abrt", FailureKind.KILLED_BY_SIGNAL, "SIGABRT"),
        ("ill", FailureKind.KILLED_BY_SIGNAL, "SIGILL"),
        ("bus", FailureKind.SEGFAULT, "SIGBUS"),
    ],
)
def test_each_deadly_signal_is_told_as_what_it_means(rig: Rig, fault: str, kind: FailureKind, word: str) -> None:
    rig.simulate(fault=f"{fault}@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    first = rig.attempts()[0]
    assert (first.outcome, first.kind) == (Outcome.CRASHED, kind)
    assert word in first.reason


def test_one_that_left_without_a_report_is_judged_by_its_log(rig: Rig) -> None:
    rig.simulate(fault="mute@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    first = rig.attempts()[0]
    assert (first.kind, first.exit_code) == (FailureKind.CUDA_OOM, 1)
    assert "its log says: torch.OutOfMemoryError" in first.reason


def test_one_that_died_while_nobody_looked_ended_when_it_was_last_alive(rig: Rig) -> None:
    rig.simulate(fault="hang@6:1")
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() == 6)
    pid = rig.trainer_pid()
    assert pid is not None
    folder = rig.layout.attempt("000001-01")
    os.kill(pid, signal.SIGKILL)
    context.launcher._children.popitem()[1].wait()  # type: ignore[union-attr]
    long_ago = time.time() - 3600
    beat = attempts.read_heartbeat(folder)
    assert beat is not None
    heartbeat = json.loads((folder / "heartbeat.json").read_text())
    (folder / "heartbeat.json").write_text(json.dumps({**heartbeat, "written_at": long_ago}))
    for name in ("trainer.log", "metrics.jsonl"):
        os.utime(folder / name, (long_ago - 5, long_ago - 5))
    connection = rig.connect()
    connection.execute("UPDATE attempts SET started_at = ?", (long_ago - 60,))
    connection.close()
    rig.tick_until(rig.context(), lambda: rig.attempts()[0].outcome is not None)
    first = rig.attempts()[0]
    assert first.outcome is Outcome.LOST
    assert first.ended_at == pytest.approx(long_ago, abs=1)


def test_one_of_an_earlier_boot_is_lost_to_a_reboot_at_its_last_sign_of_life(rig: Rig) -> None:
    rig.simulate(fault="hang@6:1")
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() == 6)
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    context.launcher._children.popitem()[1].wait()  # type: ignore[union-attr]
    folder = rig.layout.attempt("000001-01")
    handle = rig.attempts()[0].handle or ""
    connection = rig.connect()
    connection.execute("UPDATE attempts SET handle = ?", (f"{handle.rpartition(':')[0]}:another-boot",))
    connection.close()
    for name in ("ground.json", "heartbeat.json"):
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**value, "boot_id": "another-boot"}))
    rig.tick_until(rig.context(), rig.is_done)
    first = rig.attempts()[0]
    assert (first.outcome, first.kind) == (Outcome.LOST, None)
    assert "a reboot or a power cut" in first.reason
    booted_at = time.time() - attempts.boot_time()
    assert first.ended_at == pytest.approx(booted_at, abs=5), "the last sign of life came after this boot: its start"


def test_a_wait_status_survives_a_loop_that_dies_after_it_was_given(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.database import queue

    rig.simulate(fault="segv@6:1")
    rig.make(files=1)
    context = rig.context()
    real = queue.end_attempt
    monkeypatch.setattr(queue, "end_attempt", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rig.tick_until(context, rig.is_done)
    monkeypatch.setattr(queue, "end_attempt", real)
    rig.tick_until(rig.context(), rig.is_done)
    first = rig.attempts()[0]
    assert (first.kind, first.signal) == (FailureKind.SEGFAULT, signal.SIGSEGV)
    assert rig.jobs()[0].state is JobState.SUCCEEDED


def test_the_ground_is_noted_at_launch_and_grows_with_the_trainer(rig: Rig) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1)
    context = rig.context()
    folder: Path = rig.layout.attempt("000001-01")
    rig.tick_until(context, lambda: (ground := endings.read_ground(folder)) is not None and ground.pid is not None)
    ground = endings.read_ground(folder)
    assert ground is not None
    assert ground.boot_id == attempts.boot_id()
    assert (ground.peak_bytes or 0) > 0


@pytest.mark.crash
def test_a_hang_is_told_as_one_by_a_loop_that_came_after_it_was_judged(rig: Rig) -> None:
    rig.simulate(fault="hang@8:1")
    rig.make(files=1, watch__no_progress_s=1.0, watch__grace_s=600.0)
    context = rig.context()
    rig.tick_until(context, lambda: rig.attempts() and rig.attempts()[0].state is AttemptState.STOPPING, timeout=60)
    pid = rig.trainer_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    context.launcher._children.popitem()[1].wait()  # type: ignore[union-attr]
    rig.tick_until(rig.context(), rig.is_done)
    first = rig.attempts()[0]
    assert (first.outcome, first.kind, first.last_step) == (Outcome.HUNG, FailureKind.HANG, 8)
