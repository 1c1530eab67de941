"""Frozen, stuck in the kernel, or all asleep together: who cannot move is told apart from who does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from clock_shim import Clock
from overnight.domain import pace
from overnight.domain.attempt import Outcome
from overnight.domain.pace import PATIENCE
from simulated_rig import Rig

pytestmark = pytest.mark.crash
DAY_S = 86_400.0


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Make a cgroup whose processes can be frozen, so that no signal ends them, as in an uninterruptible sleep."""
    folder = Path("/sys/fs/cgroup/freezer") / f"overnight-test-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs the right to make a freezer cgroup (v1)")
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    for pid in (folder / "tasks").read_text().split():
        (folder.parent / "tasks").write_text(pid)
    folder.rmdir()


def told(rig: Rig) -> str:
    path = rig.layout.log("anti-stuck")
    return path.read_text() if path.exists() else ""


def test_the_whole_tree_frozen_for_longer_than_any_learnt_limit_goes_on_as_if_nothing_were(
    rig: Rig, clock: Clock
) -> None:
    """Given a learnt limit of 10 s for a step, when all sleep for 13 s and the clock jumps, then nobody is blamed."""
    rig.simulate(step_s=0.1)
    rig.make(files=1, rows=160)
    watchdog = rig.start_watchdog()
    rig.wait(lambda: rig.step() >= 12)
    tree = [watchdog.pid, rig.daemon_pid(), rig.trainer_pid()]
    for pid in tree:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    clock.shift(-DAY_S)
    time.sleep(13)
    clock.shift(DAY_S)
    for pid in tree:
        assert pid is not None
        os.kill(pid, signal.SIGCONT)
    rig.wait(rig.is_done, timeout=40)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.COMPLETED]
    assert "is stuck" not in told(rig)
    assert rig.events("attempt.stuck") == rig.events("daemon.restarted") == []


def test_a_trainer_that_cannot_be_killed_is_told_and_nothing_is_started_beside_it(rig: Rig, freezer: Path) -> None:
    rig.simulate(step_s=0.05)
    rig.make(files=1, watch__no_progress_s=1.5, watch__grace_s=0.5)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 6)
    pid = rig.trainer_pid()
    (freezer / "cgroup.procs").write_text(str(pid))
    (freezer / "freezer.state").write_text("FROZEN")
    rig.tick_until(context, lambda: rig.events("attempt.unkillable"), timeout=60)
    assert rig.trainer_pid() == pid
    assert len(rig.attempts()) == 1
    assert "cannot be killed" in told(rig)
    (freezer / "freezer.state").write_text("THAWED")
    rig.tick_until(context, rig.is_done, timeout=60)
    assert [attempt.outcome for attempt in rig.attempts()] == [Outcome.HUNG, Outcome.COMPLETED]
    assert len(rig.events("attempt.unkillable")) == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to delay a system call")
def test_a_save_that_hangs_in_fsync_is_told_within_its_limit_and_the_older_checkpoint_is_resumed(rig: Rig) -> None:
    rig.simulate(step_s=0.2)
    rig.make(files=1, watch__save_stuck_s=2.0, watch__grace_s=0.5)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 6)
    strace = subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=60000000", "-p",
         str(rig.trainer_pid())],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        rig.tick_until(context, lambda: "KILL:" in told(rig), timeout=60)
    finally:
        strace.kill()  # a traced process ends no sooner than its tracer looks
        strace.wait()
    rig.tick_until(context, rig.is_done, timeout=60)
    first, second = rig.attempts()
    assert (first.outcome, second.outcome, second.first_step) == (Outcome.HUNG, Outcome.COMPLETED, 5)
    assert "no progress while saving for 2 s (limit 2 s)" in first.reason


def test_a_hang_right_after_every_start_makes_the_pauses_grow_and_the_loop_lives(rig: Rig) -> None:
    rig.simulate(fault="hang@0:3")
    rig.make(files=1, watch__load_stuck_s=3, watch__grace_s=0.2)  # longer than a busy machine needs to start Python
    context = rig.context()
    context.patiences = pace.scaled(PATIENCE, 0.01)
    rig.tick_until(context, rig.is_done, timeout=90)
    outcomes = [attempt.outcome for attempt in rig.attempts()]
    assert outcomes == [Outcome.HUNG] * 3 + [Outcome.COMPLETED]
    begun = [attempt.started_at for attempt in rig.attempts()]
    ended = [attempt.ended_at or 0.0 for attempt in rig.attempts()]
    pauses = [begin - end for begin, end in zip(begun[1:], ended[:-1], strict=True)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0] + 1
    assert told(rig).count("is stuck") == 3
