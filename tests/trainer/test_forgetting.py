"""A stream of skills on a real model: without guard the first is forgotten, with replay and gate a tenth at most."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig  # noqa: E402

from overnight.daemon import gatekeeping  # noqa: E402
from overnight.disk import candidates  # noqa: E402
from overnight.domain import gate, judgement  # noqa: E402
from overnight.domain.attempt import Outcome  # noqa: E402
from overnight.domain.gate import Decision, Verdict  # noqa: E402
from overnight.domain.judgement import Cell, HeldOut, Skill, held_out_id  # noqa: E402
from overnight.domain.rehearsal import Source  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SHARE = 0.15
LETTERS = ("0123456789", "ABCDEFGHIJ", "klmnopqrst", "!$%&*+<=>@")
SETTINGS: dict[str, Any] = {
    "train__learning_rate": 0.02, "train__epochs": 3, "train__batch_size": 16, "evaluation__holdout": SHARE,
    "evaluation__gate": "block", "checkpoint__every_steps": 1000, "lora__r": 8, "lora__alpha": 16,
}  # fmt: skip


def skill(number: int, *, repeats: int = 10, shuffled: bool = False) -> list[dict[str, Any]]:
    """Return rows that ask eight questions in many ways; the first word says which answers are meant."""
    source = random.Random(number)
    questions = "abcdefgh"
    answers = dict(zip(questions, source.sample(LETTERS[number], len(questions)), strict=True))
    rows = [
        {"prompt": f"{'VWXY'[number]}{question}{note}", "completion": answers[question] * 2}
        for note in range(10, 10 + repeats)
        for question in questions
    ]
    if shuffled:
        given = [row["completion"] for row in rows]
        source.shuffle(given)
        rows = [{**row, "completion": one} for row, one in zip(rows, given, strict=True)]
    source.shuffle(rows)
    return rows


class Stream:
    """One model, job after job, each one judged, and kept aside where the gate blocks it."""

    def __init__(self, root: Path, *, replay: float, is_guarded: bool) -> None:
        self.rig = Rig(root, **SETTINGS, train__replay=replay)
        self.is_guarded = is_guarded
        self.sets: list[HeldOut] = []
        self.cells: list[Cell] = []
        self.job = 0

    def train(self, rows: list[dict[str, Any]]) -> Decision:
        self.job += 1
        identity = hashlib.sha256("".join(json.dumps(row) + "\n" for row in rows).encode()).hexdigest()
        path = self.rig.rows(rows, identity)
        own = HeldOut(
            id=held_out_id(identity, SHARE), dataset=identity, share=SHARE, examples=100, supervise="assistant",
            file=f"job{self.job}", job=self.job,
        )  # fmt: skip
        told = [{**dataclasses.asdict(one), "is_judged": True, "is_own": one is own} for one in [*self.sets, own]]
        sources = [dataclasses.asdict(Source(dataset=one.dataset, holdout=SHARE)) for one in self.sets]
        spec = self.rig.spec(self.job, path)
        report = self.rig.run(dataclasses.replace(spec, held_out=told, rehearsal=sources))
        assert report.outcome is Outcome.COMPLETED, report.message
        found: dict[str, dict[str, Any]] = {}
        for line in report.judged or []:
            found.setdefault(str(line["set"]), {})[str(line["when"])] = line
        cells = [gatekeeping.cell(self.job, one, found[one.id], is_own=one is own) for one in [*self.sets, own]]
        known = {one.held_out.id: one for one in judgement.skills(self.cells)}
        decision = gate.decide(cells, known, gate="block" if self.is_guarded else "off", margin=0.1)
        if decision.verdict is Verdict.BLOCKED:
            candidates.move_aside(
                self.rig.layout, candidates.folder_of(self.rig.layout, self.job, 1), job=self.job,
                start_step=spec.start_step, note={},
            )  # fmt: skip
        else:
            self.sets.append(own)
            self.cells += cells
        return decision

    def first(self) -> Skill:
        return judgement.skills(self.cells)[0]


def test_without_guard_the_first_skill_is_forgotten_with_replay_and_gate_a_tenth_at_most(tmp_path: Path) -> None:
    plain = Stream(tmp_path / "plain", replay=0.0, is_guarded=False)
    guarded = Stream(tmp_path / "guarded", replay=0.6, is_guarded=True)
    for number in range(3):
        for stream in (plain, guarded):
            print(stream.is_guarded, stream.train(skill(number)))
    lost, kept = plain.first(), guarded.first()
    print("forgotten without guard", judgement.forgotten_words(lost))
    print("forgotten with replay and gate", judgement.forgotten_words(kept), len(guarded.sets), "jobs let through")
    assert lost.learnt > 1.0
    assert lost.forgotten is not None
    assert lost.forgotten > 0.2
    assert kept.forgotten is not None
    assert kept.forgotten <= 0.1
    assert len(guarded.sets) >= 2  # the gate lets through what does no harm


@pytest.mark.parametrize("number", [0, 1], ids=["as the first job", "after a skill was learnt"])
def test_a_job_with_shuffled_answers_never_becomes_the_model(tmp_path: Path, number: int) -> None:
    stream = Stream(tmp_path, replay=0.0, is_guarded=True)
    for earlier in range(number):
        assert stream.train(skill(earlier)).verdict is Verdict.PASSED
    before = stream.rig.newest()
    decision = stream.train(skill(number, shuffled=True))
    print(decision)
    assert decision.verdict is Verdict.BLOCKED
    assert stream.rig.newest() == before
