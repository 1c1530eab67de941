"""What was learnt and what was forgotten: the matrix of jobs and held-out sets, as JSON and in a few words."""

from __future__ import annotations

import dataclasses
import sqlite3
from dataclasses import dataclass
from typing import Any

from overnight.database import candidates, judgements, overview
from overnight.database.candidates import Candidate
from overnight.database.judgements import Judgement
from overnight.disk import config
from overnight.disk.layout import Layout
from overnight.domain import judgement
from overnight.domain.errors import ConfigError
from overnight.domain.judgement import Cell, Score, Skill, forgotten_words, told
from overnight.domain.picture import iso
from overnight.publishing import lineage

ELSEWHERE = "not in the model in use"
MOST_FORGOTTEN = 3
"""So many skills are named in the words of ``status``, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the judge knows, for the picture."""

    last: Judgement | None = None  # the job that was judged last
    own: Cell | None = None  # what it taught
    skills: tuple[Skill, ...] = ()  # of the model as it stands
    kept: tuple[Candidate, ...] = ()  # jobs that the gate keeps aside
    gate: str = "warn"
    holdout: float = 0.0

    @property
    def is_blind(self) -> bool:
        """Whether a gate is wanted that will have nothing to judge the next job by."""
        return self.gate != "off" and self.holdout == 0 and not self.skills


_SEEN: dict[str, tuple[object, int, Judged]] = {}
"""What was read last, by workspace: the picture is taken each second, and the matrix grows with each job."""


def look(layout: Layout, connection: sqlite3.Connection, *, stands: int | None) -> Judged:
    """Return what the judge knows; ``stands`` is the step of the newest checkpoint."""
    key, state, event = str(layout.root), (judgements.state(connection), stands), overview.newest_event(connection)
    known = _SEEN.get(key)
    if known is None or known[0] != state or lineage.has_changed(connection, known[1], event):
        known = state, event, _read(layout, connection)
    _SEEN[key] = known = known[0], event, known[2]
    gate, holdout = _settings(layout)
    kept = tuple(candidates.in_state(connection, candidates.KEPT))
    return dataclasses.replace(known[2], gate=gate, holdout=holdout, kept=kept)


def _read(layout: Layout, connection: sqlite3.Connection) -> Judged:
    last = next(iter(judgements.listing(connection, limit=1)), None)
    if last is None:
        return Judged()
    own = next((cell for cell in judgements.cells_of(connection, last.job) if cell.is_own), None)
    jobs = _standing(layout, connection)
    last = dataclasses.replace(last, is_current=last.job in jobs)
    return Judged(last=last, own=own, skills=tuple(_skills(connection, jobs)))


def _standing(layout: Layout, connection: sqlite3.Connection) -> set[int]:
    return judgements.standing(connection, lineage.reached(layout, connection))


def _skills(connection: sqlite3.Connection, jobs: set[int]) -> list[Skill]:
    """Return the skills of the model in use: what was learnt on what a rollback left is none of it."""
    return judgement.skills(cell for cell in judgements.cells(connection, current=True) if cell.job in jobs)


def _settings(layout: Layout) -> tuple[str, float]:
    try:
        value = config.read_raw(layout.config, patience_s=0.0).get("evaluation", {}).get("gate", "warn")
    except (ConfigError, AttributeError):
        value = "warn"
    return str(value), config.raw_number(layout, "evaluation", "holdout", 0.0)


def table(layout: Layout, connection: sqlite3.Connection) -> list[tuple[str, str, str, str, str]]:
    """Return a line a job: its number and file, the verdict, what it taught, what was worst for an earlier skill."""
    jobs = _standing(layout, connection)
    by_job: dict[int, list[Cell]] = {}
    for cell in judgements.cells(connection, current=False):
        by_job.setdefault(cell.job, []).append(cell)
    lines = []
    for one in judgements.listing(connection):
        cells = by_job.get(one.job, [])
        own = next((told(cell) for cell in cells if cell.is_own), "nothing held out")
        earlier = [cell for cell in cells if not cell.is_own]
        worst = max(earlier, key=_rise, default=None)
        verdict = one.verdict if one.job in jobs or not one.is_current else f"{one.verdict}; {ELSEWHERE}"
        lines.append((str(one.job), one.file, verdict, own, f"{worst.held_out.file}: {told(worst)}" if worst else "-"))
    return lines


def _rise(cell: Cell) -> float:
    return cell.after.loss - cell.before.loss if cell.after is not None and cell.before is not None else 0.0


def matrix(layout: Layout, connection: sqlite3.Connection) -> dict[str, Any]:
    """Return the whole matrix: a row for each job, a column for each set, the oldest first."""
    jobs = _standing(layout, connection)
    cells = judgements.cells(connection, current=False)
    columns = {cell.held_out.id: cell.held_out for cell in cells}
    by_job: dict[int, list[Cell]] = {}
    for cell in cells:
        by_job.setdefault(cell.job, []).append(cell)
    return {
        "sets": [dataclasses.asdict(one) for one in columns.values()],
        "jobs": [
            {
                **_judgement_json(dataclasses.replace(one, is_current=one.job in jobs)),
                "cells": [_cell_json(cell) for cell in by_job.get(one.job, [])],
            }
            for one in judgements.listing(connection)
        ],
        "skills": [_skill_json(one) for one in _skills(connection, jobs)],
    }


def to_json(judged: Judged) -> dict[str, Any]:
    """Return what ``status --json`` tells of it."""
    return {
        "gate": judged.gate,
        "holdout": judged.holdout,
        "has_something_to_judge_by": not judged.is_blind,
        "last": None if judged.last is None else _judgement_json(judged.last),
        "learnt": None if judged.own is None else _cell_json(judged.own),
        "skills": [_skill_json(skill) for skill in judged.skills],
        "kept_aside": [
            {
                "job": one.job,
                "file": one.file,
                "step": one.step,
                "start_step": one.start_step,
                "reason": one.reason,
                "since": iso(one.at),
                "accept": f"overnight accept {one.job}",
                "discard": f"overnight discard {one.job}",
            }
            for one in judged.kept
        ],
    }


def words(judged: Judged) -> list[tuple[str, str]]:
    """Return it as pairs of a name and a text; an empty text is not worth a line."""
    blind = "nothing to judge by: no rows are held out (evaluation.holdout is 0)" if judged.is_blind else ""
    return [
        ("learnt", _learnt_words(judged)),
        ("forgotten", _forgotten_words(judged)),
        ("gate", f"{judged.gate}, {blind}" if blind else ""),
        *(("kept aside", _kept_words(one)) for one in judged.kept),
    ]


def _learnt_words(judged: Judged) -> str:
    last = judged.last
    if last is None:
        return ""
    verdict = "" if last.verdict == "passed" else f"; {last.verdict}: {last.reason}"
    if any(one.job == last.job for one in judged.kept):
        verdict = "; blocked"  # the reason stands in a line of its own
    elif not last.is_current:
        verdict += f"; {ELSEWHERE}"
    figures = told(judged.own) if judged.own is not None else "no rows of its own are held out"
    return f"{last.file} (job {last.job}): {figures}{verdict}"


def _forgotten_words(judged: Judged) -> str:
    last_set = judged.own.held_out.id if judged.own is not None else None
    earlier = [skill for skill in judged.skills if skill.held_out.id != last_set]
    if not earlier:
        return ""
    worst = sorted(earlier, key=lambda skill: -(skill.forgotten or 0.0))[:MOST_FORGOTTEN]
    named = [f"{skill.held_out.file} {forgotten_words(skill)}" for skill in worst]
    rest = len(earlier) - len(worst)
    return ", ".join([*named, *([f"{rest} more less"] if rest else [])])


def _kept_words(one: Candidate) -> str:
    return (
        f"{one.file} (job {one.job}): {one.reason}; overnight accept {one.job} makes it the model,"
        f" overnight discard {one.job} drops it"
    )


def _judgement_json(one: Judgement) -> dict[str, Any]:
    return {
        "job": one.job,
        "file": one.file,
        "step": one.step,
        "verdict": one.verdict,
        "reason": one.reason,
        "is_current": one.is_current,
        "at": iso(one.at),
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "set": cell.held_out.id,
        "file": cell.held_out.file,
        "is_own": cell.is_own,
        "before": _score_json(cell.before),
        "after": _score_json(cell.after),
        "skipped": cell.skipped or None,
    }


def _score_json(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else dataclasses.asdict(score)


def _skill_json(skill: Skill) -> dict[str, Any]:
    return {
        "set": skill.held_out.id,
        "file": skill.held_out.file,
        "job": skill.held_out.job,
        "untaught": skill.untaught,
        "best": skill.best,
        "loss": skill.now.loss if skill.now is not None else None,
        "accuracy": skill.now.accuracy if skill.now is not None else None,
        "forgotten": skill.forgotten,
    }
