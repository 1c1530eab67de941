"""Trainers forked from a spare that has torch loaded: they leave the same bytes as trainers started anew."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, digests, sums

from overnight.disk import attempts
from overnight.domain.attempt import Outcome, Spec
from overnight.domain.spare import State
from overnight.launchers import orphans, spare
from overnight.launchers.base import Exited
from overnight.launchers.local import Local
from overnight.launchers.spare import Need, Spare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="a spare trainer is Linux's"),
]
SETTINGS: dict[str, Any] = {"lora__dropout": 0.1, "evaluation__holdout": 0.2, "evaluation__every_steps": 4}


class Forge:
    """A workspace with a spare; trainers are started in both ways, one after the other."""

    def __init__(self, root: Path) -> None:
        self.rig = Rig(root, **SETTINGS)
        self.launcher = Local()
        self.spare: Spare | None = None

    def warm_up(self, *, gently: bool) -> None:
        base = self.rig.spec(99, self.rig.rows(sums(1, 4), "none")).base_model
        need = Need(kind="local", threads=1, base_model=base, ground="here")
        self.spare = Spare(self.rig.layout, need, gently=gently)

    def launch(self, spec: Spec, *, is_warm: bool) -> str:
        folder = self.rig.place(spec)
        if not is_warm:
            return self.launcher.start(folder, workspace=self.rig.layout.root, record=lambda _: None)
        assert self.spare is not None
        wait(lambda: self.spare is not None and self.spare.look() is not State.LOADING)
        assert self.spare.state is State.READY, self.spare.why
        handle = self.spare.fork(folder, record=lambda _: None, prefix="local")
        assert handle is not None, self.spare.why
        self.launcher.adopt(handle)
        return handle

    def until_step(self, spec: Spec, step: int) -> None:
        folder = self.rig.layout.attempt(spec.attempt)
        wait(lambda: (beat := attempts.read_heartbeat(folder)) is not None and (beat.checkpoint or 0) >= step)

    def ended(self, handle: str) -> Exited:
        wait(lambda: isinstance(self.launcher.poll(handle), Exited))
        found = self.launcher.poll(handle)
        assert isinstance(found, Exited)
        return found

    def train(self, job: int, rows: Path, ways: str) -> None:
        """Train a job, killing it once a checkpoint is there before each further launch: "cw" is cold, then warm."""
        for number, way in enumerate(ways, start=1):
            spec = self.rig.spec(job, rows)
            handle = self.launch(spec, is_warm=way == "w")
            if number < len(ways):
                self.until_step(spec, spec.start_step + 3 * number)
                self.launcher.kill(handle)
                assert self.ended(handle) == Exited(exit_code=None, signal=signal.SIGKILL)
                continue
            assert self.ended(handle) == Exited(exit_code=0, signal=None)
            report = attempts.read_report(self.rig.layout.attempt(spec.attempt))
            assert report is not None
            assert report.outcome is Outcome.COMPLETED
            assert report.notes == []

    def end(self) -> None:
        if self.spare is not None:
            assert self.spare.end()


def wait(condition: Callable[[], Any], *, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Forge]]:
    made: list[Forge] = []

    def one(name: str) -> Forge:
        made.append(Forge(tmp_path / name))
        return made[-1]

    assert spare.is_possible()
    yield one
    for forge in made:
        forge.end()
    orphans.take_in(wanted=False)


def test_forked_trainers_leave_the_bytes_of_trainers_started_anew(make: Callable[[str], Forge]) -> None:
    """Fresh, resumed after a kill, continued by a second job; loaded in a thread that stands back, as beside work."""
    cold, warm = make("cold"), make("warm")
    warm.warm_up(gently=True)
    rows = [sums(1, 60), sums(2, 40)]
    for forge, ways in ((cold, "cc"), (warm, "cw")):
        forge.train(1, forge.rig.rows(rows[0], "one"), ways)
        forge.train(2, forge.rig.rows(rows[1], "two"), ways[1])
    assert states(warm) == states(cold)


def states(forge: Forge) -> dict[str, dict[str, str]]:
    return {folder.name: digests(folder) for folder in sorted(forge.rig.layout.model.glob("checkpoint-*"))}


def test_a_fresh_start_from_a_spare_leaves_no_trace_of_it(make: Callable[[str], Forge]) -> None:
    forge = make("one")
    forge.warm_up(gently=False)
    rows = forge.rig.rows(sums(3, 24), "rows")
    spec = dataclasses.replace(forge.rig.spec(1, rows), settings={**forge.rig.settings, "seed": 5})
    handle = forge.launch(spec, is_warm=True)
    pid = int(handle.split(":")[1])
    folder = forge.rig.layout.attempt(spec.attempt)
    wait(lambda: attempts.read_heartbeat(folder))
    targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.name != "0"}
    assert not [target for target in targets if "spare" in target or target.startswith("pipe:")]
    assert forge.ended(handle) == Exited(exit_code=0, signal=None)
    assert not (forge.rig.layout.state / "spare").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "heartbeat.json", "metrics.jsonl", "report.json", "spec.json", "trainer.log"
    ]  # fmt: skip
