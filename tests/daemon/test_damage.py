"""Damaged checkpoints under the real dispatcher: the right one is used, and the end is that of the undisturbed run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import names
from damage_rig import DAMAGES
from overnight.control.verifying import verify
from simulated_rig import Rig

EVERY = "OVERNIGHT_EVERY_DAMAGE" in os.environ
"""Set it for every case; it takes some three minutes."""

FILES = ("state.json", "weights.bin", "manifest.json")
ALL = [(name, how, depth) for name in FILES for how in DAMAGES for depth in (1, 2, 3)]
QUICK = [
    ("state.json", "cut", 1), ("weights.bin", "swapped", 2), ("manifest.json", "removed", 3),
    ("weights.bin", "one bit flipped", 3), ("state.json", "zero-filled", 2),
]  # fmt: skip


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Make a workspace whose job stands still, with checkpoints at each fourth step."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("paused") / "workspace", patch)
        rig.make(files=1, rows=96, checkpoint__every_steps=4, checkpoint__keep=9)
        rig.simulate(step_s=0.05)
        context = rig.context()
        rig.tick_until(context, lambda: rig.step() >= 17)
        rig.wish("paused")
        rig.tick_until(context, lambda: context.standing.state == "paused")
        rig.settle()
        yield rig


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return the model with which the undisturbed run ends."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace", patch)
        rig.make(files=1, rows=96, checkpoint__every_steps=4, checkpoint__keep=9)
        rig.simulate(step_s=0)
        context = rig.context()
        rig.tick_until(context, rig.is_done)
        rig.end()
        yield rig.model()


@pytest.mark.parametrize(("name", "how", "depth"), ALL if EVERY else QUICK)
def test_a_damaged_checkpoint_is_found_by_verifier_and_dispatcher_alike_and_the_run_ends_with_the_same_bytes(
    paused: Rig, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, how: str, depth: int,
) -> None:  # fmt: skip
    rig = Rig(tmp_path / "workspace", monkeypatch)
    shutil.copytree(paused.layout.root, rig.layout.root)
    rig.simulate(step_s=0)
    steps = sorted((int(one.partition("-")[2]) for one in names(rig.layout)), reverse=True)
    assert len(steps) >= 4
    for step in steps[:depth]:
        DAMAGES[how](rig.layout.checkpoint(step) / name, rig.layout.checkpoint(4) / name)
    connection = rig.connect()
    verdict = verify(rig.layout, connection)
    connection.close()
    assert verdict.resume_from is not None
    assert verdict.resume_from.step == steps[depth]
    rig.withdraw("paused")
    context = rig.context()
    try:
        rig.tick_until(context, rig.is_done)
        assert rig.model() == expected
        resumed = rig.attempts()[-1]
        assert resumed.first_step == steps[depth], "the dispatcher takes what the verifier names"
        aside = {path.name.partition(".")[0] for path in rig.layout.trash.iterdir()}
        assert aside == {f"checkpoint-{step}" for step in steps[:depth]}
        assert [event["data"]["step"] for event in rig.events("checkpoint.set_aside")] == steps[:depth]
    finally:
        rig.end()
