"""A trainer that leaks saves and leaves before memory is gone; the fresh one ends with the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from control_group import MemoryGroup
from overnight.daemon import footprint
from overnight.domain import memory
from overnight.domain.attempt import FailureKind, Outcome
from simulated_rig import Rig

pytestmark = pytest.mark.crash


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and let a fresh process pay off soon: the runs of this file last seconds."""
    monkeypatch.setattr(footprint, "EVERY_S", 0.05)
    monkeypatch.setattr(memory, "PAYS_OFF", 0.5)


@pytest.fixture
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the same job leaves when nothing leaks."""
    other = Rig(tmp_path / "undisturbed", monkeypatch).make(files=1, rows=480)
    other.simulate(step_s=0)
    other.tick_until(other.context(), other.is_done)
    model = other.model()
    other.end()
    return model


def check_fresh(rig: Rig, undisturbed: dict[str, Any], words: str) -> None:
    """Check that one fresh process took over at the very step, and that nothing was lost."""
    first, second = rig.attempts()
    assert (first.outcome, second.outcome) == (Outcome.PREEMPTED, Outcome.COMPLETED)
    assert second.first_step == first.last_step, "it had saved where it stood"
    (event,) = rig.events("attempt.memory")
    assert "the trainer has grown from" in event["message"]
    assert words in event["message"]
    assert any("a fresh process goes on" in event["message"] for event in rig.events("attempt.stop"))
    assert rig.jobs()[0].charged == 0
    assert rig.model() == undisturbed


def test_a_leak_beyond_the_limit_ends_in_a_fresh_process_and_the_same_bytes(
    rig: Rig, undisturbed: dict[str, Any]
) -> None:
    rig.simulate(step_s=0.02, fault="leak@10:1")
    rig.make(files=1, rows=480, watch__max_memory_gb=0.06)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    check_fresh(rig, undisturbed, "watch.max_memory_gb is 0.06")


def test_a_leak_where_memory_gets_short_ends_in_a_fresh_process_without_any_setting(
    rig: Rig, undisturbed: dict[str, Any], group: MemoryGroup
) -> None:
    group.limit(96 << 20)
    rig.simulate(step_s=0.02, fault="leak@10:1")
    rig.make(files=1, rows=480)
    context = rig.context()
    group.take(rig.tick_until(context, rig.trainer_pid))
    rig.tick_until(context, rig.is_done, timeout=60)
    check_fresh(rig, undisturbed, "its control group has")
    assert group.kills() == 0


def test_a_leak_where_there_is_room_harms_nobody(rig: Rig) -> None:
    rig.simulate(step_s=0.02, fault="leak@10")
    rig.make(files=1, rows=240)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    assert len(rig.attempts()) == 1
    assert rig.events("attempt.memory") == []


def test_a_limit_below_what_the_trainer_needs_is_told_once_and_ends_nothing(rig: Rig) -> None:
    rig.simulate(step_s=0.02)
    rig.make(files=1, rows=240, watch__max_memory_gb=0.001)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    assert len(rig.attempts()) == 1
    (event,) = rig.events("attempt.memory")
    assert "a fresh one would be as big" in event["message"]


def test_a_leak_in_every_attempt_is_no_loop_of_restarts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PAYS_OFF", 1000.0)
    rig.simulate(step_s=0.02, fault="leak@6")
    rig.make(files=1, rows=320, watch__max_memory_gb=0.05)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    assert len(rig.attempts()) == 1
    (event,) = rig.events("attempt.memory")
    assert "too fast for a fresh one to help" in event["message"]


def test_an_adopted_trainer_s_leak_is_not_taken_for_its_need(rig: Rig, undisturbed: dict[str, Any]) -> None:
    rig.simulate(step_s=0.02, fault="leak@10:1")
    rig.make(files=1, rows=480)
    rig.tick_until(rig.context(), lambda: rig.step() >= 60)
    rig.set(watch__max_memory_gb=0.06)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    check_fresh(rig, undisturbed, "watch.max_memory_gb is 0.06")


def test_a_trainer_that_gets_no_memory_is_typed_waited_out_and_never_charged(rig: Rig) -> None:
    resource = pytest.importorskip("resource")
    rig.simulate(step_s=0.02, fault="leak@3:1")
    rig.make(files=1, rows=240)
    context = rig.context()
    pid = rig.tick_until(context, rig.trainer_pid)
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * 4096
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (12 << 20), size + (12 << 20)))
    rig.tick_until(context, rig.is_done, timeout=60)
    first, second = rig.attempts()
    assert (first.kind, second.outcome) == (FailureKind.HOST_OOM, Outcome.COMPLETED)
    assert rig.jobs()[0].charged == 0
