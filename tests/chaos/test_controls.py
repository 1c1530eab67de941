"""Negative controls: with the sync, a lock, the verifier or the watchdog taken out, the same checks must complain.

Each control runs the product with one part broken by a ``sitecustomize`` of tests/chaos/sabotage, and asks for the very
words of the complaint. A check that cannot fail proves nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import power, runner
from chaos.runner import Chaos
from chaos.schedule import Plan
from chaos.verdict import judge, undisturbed
from chaos.workspace import SIMULATED

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

SABOTAGE = Path(__file__).parent / "sabotage"
KIND = dataclasses.replace(SIMULATED, bound_s=8.0)
QUIET = Plan(number=1, what="kill", victims=("loop",), moment="train", steps=6, delay_s=0, lasting_s=0.2, luck=0.3)


def complaints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *plans: Plan, broken: str | None, wants_end: bool = True
) -> list[str]:
    """Run these faults on a product with one part broken; return every complaint."""

    def planned(seed: int, **_: object) -> Iterator[Plan]:
        yield from plans

    monkeypatch.setattr(runner, "plans", planned)
    python_path = str(SABOTAGE / broken) if broken is not None else ""
    told: list[str] = []
    root = tmp_path.resolve() / "workspace"
    chaos = Chaos(root, KIND, seed=1, kills=len(plans), tell=told.append, python_path=python_path)
    try:
        run = chaos.run()
        if not wants_end:
            return run.offences
        return judge(run, undisturbed(tmp_path / "undisturbed" / "workspace", KIND, run.files)).complaints
    except AssertionError as error:  # so broken that nothing goes on
        return [*chaos.run_.offences, str(error)]
    finally:
        chaos.workspace.end()
        print("\n".join(told))


SECOND = dataclasses.replace(QUIET, what="second")
ROT = dataclasses.replace(QUIET, what="rot", victims=("everything",), steps=20, luck=0.3025)
"""With that luck one letter of the chain in state.json is another one: it can still be read."""


def test_without_sabotage_the_same_faults_bring_no_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaints(tmp_path, monkeypatch, QUIET, SECOND, ROT, broken=None) == []


def test_with_the_locks_taken_out_a_second_daemon_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = complaints(tmp_path, monkeypatch, SECOND, broken="no_lock", wants_end=False)
    assert any("a second loop was let in beside the first" in text for text in found), found


def test_with_the_verifier_taken_out_the_bytes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = complaints(tmp_path, monkeypatch, ROT, broken="no_verify")
    assert any("the bytes differ from the undisturbed run's" in text for text in found), found


def test_with_the_watchdog_taken_out_a_killed_loop_stays_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = complaints(tmp_path, monkeypatch, QUIET, broken="no_watchdog", wants_end=False)
    assert any("no complete guard, within" in text for text in found), found


def test_with_the_sync_taken_out_a_power_cut_loses_what_was_announced(tmp_path: Path) -> None:
    why = power.why_not(tmp_path)
    if why:
        pytest.skip(f"no power can be cut here: {why}")
    told: list[str] = []
    found = power.cut_often(
        tmp_path / "run", seed=5, cuts=6, tell=told.append, python_path=str(SABOTAGE / "no_fsync"), stop_early=True
    )
    assert any("was announced as saved; the newest whole one is" in text for text in found), (found, told)
