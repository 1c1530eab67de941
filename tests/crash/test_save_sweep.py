"""A real trainer killed at every rename, removal and sync that it makes: the next one ends with the same bytes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from forking_rig import Forker, forker
from overnight.disk import attempts, checkpoints
from overnight.disk.attempts import read_metrics
from overnight.domain.checkpoint import Verdict
from sweep_rig import needs_strace, sampled, sweep

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from rig import Rig, sums

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_strace, pytest.mark.timeout(3000)]

STEPS = 4
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    with forker(tmp_path_factory.mktemp("forker")) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(trainers: Forker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Rig, dict[str, str]]:
    rig = make(tmp_path_factory.mktemp("undisturbed"))
    assert os.waitstatus_to_exitcode(trainers.run(place(rig))) == 0
    assert rig.newest().step == STEPS  # type: ignore[union-attr]
    return rig, rig.state()


def make(folder: Path, base: Path | None = None) -> Rig:
    root = folder / f"{next(NUMBERS)}"
    if base is not None:
        shutil.copytree(base, root / ".overnight" / "base" / "tiny")
    return Rig(root, checkpoint__every_steps=2)


def place(rig: Rig) -> Path:
    """Make the next attempt's folder, as the loop does: resumed from the newest whole checkpoint, or fresh."""
    rows = rig.layout.datasets / "a" / "rows.jsonl"
    spec = rig.spec(1, rows if rows.exists() else rig.rows(sums(1, 16), "a"))
    return rig.place(spec)


def numbers(folder: Path) -> dict[int, Any]:
    return {line["step"]: (line["loss"], line["grad_norm"]) for line in read_metrics(folder, limit=1000)}


@sampled(rename=(14,), fsync=(20,), unlink=(3,))
def test_a_trainer_killed_at_any_point_of_its_saves_leaves_whole_checkpoints_and_the_next_one_ends_with_the_same_bytes(
    trainers: Forker, undisturbed: tuple[Rig, dict[str, str]], tmp_path: Path, call: str, points: tuple[int, ...]
) -> None:
    pristine, expected = undisturbed
    losses = numbers(next(iter(sorted(pristine.layout.attempts.iterdir()))))
    resumed_from = set()

    def strike(point: int) -> bool:
        rig = make(tmp_path, base=pristine.layout.base / "tiny")
        first = place(rig)
        status = trainers.run_killed(first, call, point)
        is_met = os.WIFSIGNALED(status)
        assert is_met or os.waitstatus_to_exitcode(status) == 0, (first / "trainer.log", status)
        if is_met:
            assert os.WTERMSIG(status) == signal.SIGKILL
        for path in rig.layout.model.iterdir():
            if not path.name.startswith("."):
                assert checkpoints.verify(path).verdict is Verdict.VERIFIED, path
        newest = rig.newest()
        resumed_from.add(newest.step if newest is not None else 0)
        if is_met:
            second = place(rig)
            assert os.waitstatus_to_exitcode(trainers.run(second)) == 0, attempts.read_report(second)
            again = numbers(second)
            assert {step: losses[step] for step in again} == again
            assert numbers(first).keys() | again.keys() == losses.keys(), "a step is missing"
        assert rig.state() == expected
        assert (rig.layout.datasets / "a" / "rows.jsonl").read_bytes() == (
            pristine.layout.datasets / "a" / "rows.jsonl"
        ).read_bytes()
        shutil.rmtree(rig.layout.root)
        return is_met

    sweep("the trainer's save", call, points, strike)
    if not points and call in ("rename", "fsync"):
        assert resumed_from == {0, 2, 4}, "the kills were to hit before, between and after the saves"
