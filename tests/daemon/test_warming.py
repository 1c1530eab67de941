"""The spare trainer under the loop: with real processes and simulated trainers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.daemon.context import Context
from overnight.database.connection import connect
from overnight.disk import files
from overnight.domain.job import JobState
from overnight.domain.spare import State
from overnight.launchers import beats, orphans, processes
from overnight.launchers import spare as spares
from overnight.launchers.choice import SIMULATED
from overnight.status import snapshot
from simulated_rig import Rig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a spare trainer is Linux's")


@pytest.fixture
def warm(rig: Rig) -> Iterator[Rig]:
    """Give a workspace whose simulated trainers are forked from a spare."""
    rig.simulate(spare=1, step_s=0.02)
    yield rig
    orphans.take_in(wanted=False)


def spare_pid(rig: Rig) -> int | None:
    holder = files.lock_holder(rig.layout.spare_lock)
    return holder.get("pid") if holder else None


def is_forked(context: Context) -> bool:
    """Return whether the trainer at work was forked: its handle has no process that the launcher started itself."""
    launcher: Any = context.launcher
    return launcher is not None and bool(launcher._forked) and not launcher._children


def hold_loading(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Have spares load until the file that is returned is there."""
    release = folder / "release"
    monkeypatch.setenv("OVERNIGHT_FAULT", "spare_load:1:held")
    monkeypatch.setenv("OVERNIGHT_FAULT_RELEASE", str(release))
    return release


def test_all_trainers_of_a_queue_are_forked_from_one_spare(warm: Rig) -> None:
    warm.make(files=2)
    context = warm.context()
    seen: set[tuple[str, int | None]] = set()

    def look() -> bool:
        if context.watched is not None:
            assert is_forked(context)
            seen.add((context.watched.attempt, spare_pid(warm)))
        return warm.is_done()

    warm.tick_until(context, look)
    assert [attempt for attempt, _ in sorted(seen)] == ["000001-01", "000002-01"]
    assert len({pid for _, pid in seen}) == 1
    assert [(attempt.exit_code, attempt.signal) for attempt in warm.attempts()] == [(0, None)] * 2


@pytest.mark.crash
def test_a_killed_trainer_is_followed_by_a_forked_one_and_its_signal_is_known(warm: Rig) -> None:
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, lambda: warm.step() >= 6)
    before = spare_pid(warm)
    killed = warm.trainer_pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    warm.tick_until(context, lambda: warm.trainer_pid() not in (None, killed))
    assert is_forked(context)
    warm.tick_until(context, warm.is_done)
    assert [attempt.signal for attempt in warm.attempts()] == [signal.SIGKILL, None]
    assert spare_pid(warm) == before


def test_the_first_job_waits_for_the_libraries_and_the_status_says_so(
    warm: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = hold_loading(monkeypatch, tmp_path)
    monkeypatch.setattr(beats, "NAME", "beat-of-this-test")  # loops that earlier tests ticked here left beats behind
    warm.make(files=1)
    context = warm.context()
    context.locks = None
    lock = files.Lock(warm.layout.daemon_lock)
    assert lock.acquire(holder={"pid": os.getpid()})
    guard = files.Lock(warm.layout.watchdog_lock)
    assert guard.acquire(holder={"pid": os.getpid()})  # a real watchdog would start a second loop beside this one
    warm.wish("up")
    connection = connect(warm.layout.database)

    def seen() -> tuple[str, str]:
        return context.standing.state, snapshot(warm.layout, connection, now=0.0).standing.state.value

    warm.tick_until(context, lambda: seen() == ("loading", "loading"))
    assert "file0.jsonl" in context.standing.reason
    assert warm.attempts() == []
    assert warm.jobs()[0].state is JobState.QUEUED
    connection.close()
    release.touch()
    warm.tick_until(context, warm.is_done, timeout=60)
    assert len(warm.attempts()) == 1
    guard.release()
    lock.release()


@pytest.mark.parametrize("wish", ["paused", "stopped"])
def test_a_wish_is_heeded_while_the_libraries_are_loaded(
    warm: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wish: str
) -> None:
    release = hold_loading(monkeypatch, tmp_path)
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, lambda: context.standing.state == "loading")
    warm.wish(wish, reason="asked")
    warm.tick_until(context, lambda: context.standing.state == wish)
    spare = context.warmth.spare
    assert spare is not None
    release.touch()
    warm.tick_until(context, lambda: spare.look() is State.READY)
    warm.tick_until(context, lambda: context.standing.state == wish)
    assert warm.attempts() == []


def test_down_ends_a_spare_that_loads(warm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_FAULT", "spare_load:1:sleep")
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, lambda: context.standing.state == "loading")
    warm.wish("down", now=False)
    warm.tick_until(context, lambda: context.is_over)
    assert context.warmth.spare is None
    assert spare_pid(warm) is None
    assert warm.attempts() == []


@pytest.mark.crash
def test_a_spare_that_dies_while_it_loads_is_not_waited_for_for_long(
    warm: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_FAULT", "spare_load:1:kill")
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, warm.is_done)
    assert len(warm.attempts()) == 1
    lost = warm.events("spare.lost")
    assert 2 <= len(lost) <= 3
    assert context.warmth.troubles == len(lost)


@pytest.mark.crash
def test_a_killed_spare_is_replaced_while_the_training_goes_on(warm: Rig) -> None:
    warm.simulate(spare=1, step_s=0.05)
    warm.make(files=1, rows=400)
    context = warm.context()
    warm.tick_until(context, lambda: warm.step() >= 1)
    first, trainer = spare_pid(warm), warm.trainer_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    warm.tick_until(context, lambda: spare_pid(warm) not in (None, first))
    assert warm.trainer_pid() == trainer
    spare = context.warmth.spare
    assert spare is not None
    warm.tick_until(context, lambda: spare.look() is State.READY)
    os.kill(trainer or 0, signal.SIGKILL)
    warm.tick_until(context, lambda: warm.trainer_pid() not in (None, trainer))
    assert is_forked(context)


@pytest.mark.crash
def test_a_stopped_spare_costs_the_cold_way_once(warm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "HANDSHAKE_S", 0.5)
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, lambda: warm.step() >= 2)
    stopped, trainer = spare_pid(warm), warm.trainer_pid()
    assert stopped is not None
    assert trainer is not None
    os.kill(stopped, signal.SIGSTOP)
    os.kill(trainer, signal.SIGKILL)
    warm.tick_until(context, lambda: warm.trainer_pid() not in (None, trainer))
    assert not is_forked(context)
    assert processes.identify(stopped) is None
    warm.tick_until(context, warm.is_done)
    assert len(warm.attempts()) == 2


@pytest.mark.crash
def test_a_spare_that_cannot_be_killed_holds_nobody_up_and_is_told_once(warm: Rig) -> None:
    warm.simulate(spare=1, step_s=0.05)
    warm.make(files=1)
    context = warm.context()
    warm.tick_until(context, lambda: warm.step() >= 2)
    stopped, trainer = spare_pid(warm), warm.trainer_pid()
    assert stopped is not None
    assert trainer is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spares, "HANDSHAKE_S", 0.5)
        patch.setattr(spares, "END_S", 0.2)
        patch.setattr(spares.processes, "kill_session", lambda leader: None)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(trainer, signal.SIGKILL)
        warm.tick_until(context, lambda: warm.trainer_pid() not in (None, trainer))
        warm.tick_until(context, warm.is_done)
        assert spare_pid(warm) == stopped
        assert len(warm.events("spare.lost")) == 1
        assert len(warm.attempts()) == 2
    warm.tick_until(context, lambda: processes.identify(stopped) is None)


def test_nothing_is_forked_from_what_was_replaced(warm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    warm.make(files=1)
    context = warm.context()
    monkeypatch.setattr(spares, "ground", lambda: "the old one")
    warm.tick_until(context, lambda: (spare := context.warmth.spare) is not None and spare.look() is State.READY)
    old = spare_pid(warm)
    monkeypatch.setattr(spares, "ground", lambda: "the new one")
    warm.tick_until(context, lambda: context.watched is not None)
    assert not is_forked(context)
    context.warmth.looked_at = float("-inf")
    warm.tick_until(context, lambda: spare_pid(warm) not in (None, old))


def test_switched_off_there_is_no_spare(warm: Rig) -> None:
    warm.make(files=1, launcher__spare=False)
    context = warm.context()
    warm.tick_until(context, lambda: context.watched is not None)
    assert not is_forked(context)
    warm.tick_until(context, warm.is_done)
    assert context.warmth.spare is None


@pytest.mark.crash
@pytest.mark.parametrize("blow", [None, signal.SIGSTOP], ids=["", "with the spare stopped"])
def test_a_killed_loop_leaves_the_trainer_and_no_spare(warm: Rig, blow: signal.Signals | None) -> None:
    warm.simulate(spare=1, step_s=0.1)
    warm.make(files=1, rows=400)
    loop = warm.start_loop()
    warm.wait(lambda: warm.step() >= 1 and spare_pid(warm) is not None, what="a step")
    spare, trainer = spare_pid(warm), warm.trainer_pid()
    assert spare is not None
    if blow is not None:
        os.kill(spare, blow)
    loop.kill()
    loop.wait()
    if blow is None:
        warm.wait(lambda: processes.identify(spare) is None, what="the spare's end")
    warm.start_loop()
    warm.wait(lambda: spare_pid(warm) not in (None, spare), what="a new spare")
    assert processes.identify(spare) is None
    assert warm.trainer_pid() == trainer
    assert [attempt.number for attempt in warm.attempts()] == [1]


def test_simulated_trainers_have_no_spare_unless_they_are_asked_to(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "spare" not in os.environ[SIMULATED]
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    assert context.warmth.spare is None
