"""What the judge found after a job -> the database; and whether the gate lets the job become the model."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import Any

from overnight.daemon.context import Context, Moment
from overnight.database import judgements
from overnight.disk.layout import Layout
from overnight.domain import gate, judgement
from overnight.domain.attempt import Report
from overnight.domain.config import Settings
from overnight.domain.gate import Decision, Verdict
from overnight.domain.job import Job
from overnight.domain.judgement import Cell, HeldOut, Score
from overnight.publishing import lineage


def sets_for(layout: Layout, connection: sqlite3.Connection, job: Job, settings: Settings) -> list[dict[str, Any]]:
    """Return what a trainer is told of held-out rows: every set there ever was, and which of them it judges."""
    own = judgements.hold_out(connection, job, settings)
    judged = {one.id for one in _learnt(layout, connection)} | ({own.id} if own is not None else set())
    return [
        {**dataclasses.asdict(one), "is_judged": one.id in judged, "is_own": own is not None and one.id == own.id}
        for one in judgements.all_sets(connection)
    ]


def is_to_be_judged(layout: Layout, connection: sqlite3.Connection, job: Job) -> bool:
    """Return whether anything is judged after a job."""
    settings = Settings.model_validate(job.settings) if job.settings is not None else None
    holds_out = settings is not None and settings.evaluation.holdout > 0
    return holds_out or bool(_learnt(layout, connection))


def _learnt(layout: Layout, connection: sqlite3.Connection) -> list[HeldOut]:
    """Return the sets of what the model in use has learnt: what a rollback gave up is no skill that could be harmed."""
    return judgements.learnt_sets(connection, judgements.standing(connection, lineage.reached(layout, connection)))


def judge(context: Context, job: Job, report: Report | None, now: Moment) -> Decision | None:
    """Write down what was found after a job and decide by it; None where nothing was judged."""
    cells = cells_of(context.connection, job, report)
    if not cells or report is None:
        return None
    settings = Settings.model_validate(job.settings)
    jobs = judgements.standing(context.connection, lineage.reached(context.layout, context.connection)) - {job.id}
    earlier = [cell for cell in judgements.cells(context.connection, current=True) if cell.job in jobs]
    known = {skill.held_out.id: skill for skill in judgement.skills(earlier)}
    decision = gate.decide(cells, known, gate=settings.evaluation.gate, margin=settings.evaluation.gate_margin)
    is_current = decision.verdict is not Verdict.BLOCKED
    judgements.record(
        context.connection, job.id, _marked(cells, decision, is_current=is_current), step=report.step,
        verdict=decision.verdict.value, reason=decision.reason, is_current=is_current, now=now.unix,
    )  # fmt: skip
    context.tell(
        f"judged {job.id}", f"{job.file} (job {job.id}) is judged, {decision.verdict.value}: {decision.reason}",
        kind="job.judged", level="info" if decision.verdict is Verdict.PASSED else "warning", at=now.unix, job=job.id,
        verdict=decision.verdict.value,
    )  # fmt: skip
    return decision


def _marked(cells: Sequence[Cell], decision: Decision, *, is_current: bool) -> list[Cell]:
    return [dataclasses.replace(cell, is_let_pass=is_current and cell.held_out.id in decision.harmed) for cell in cells]


def cells_of(connection: sqlite3.Connection, job: Job, report: Report | None) -> list[Cell]:
    """Return what a trainer reports of each set that it judged; what it says of others, or garbled, is passed over."""
    sets = {one.id: one for one in judgements.all_sets(connection)}
    found: dict[str, dict[str, Any]] = {}
    for line in (report.judged if report is not None else None) or []:
        name = str(line.get("set"))
        if name in sets and not line.get("is_empty"):
            found.setdefault(name, {})[str(line.get("when"))] = line
    own = _own(job)
    return [cell(job.id, sets[name], lines, is_own=name == own) for name, lines in found.items()]


def _own(job: Job) -> str:
    share = Settings.model_validate(job.settings).evaluation.holdout
    return judgement.held_out_id(job.dataset or "", share)


def cell(job: int, held_out: HeldOut, lines: dict[str, Any], *, is_own: bool) -> Cell:
    """Return a cell from the lines that a trainer wrote of one set, by when it was judged."""
    skipped = [str(line["skipped"]) for line in lines.values() if line.get("skipped")]
    return Cell(
        job=job, held_out=held_out, is_own=is_own, before=_score(lines.get("before")),
        after=_score(lines.get("after")), skipped="; ".join(dict.fromkeys(skipped)),
    )  # fmt: skip


def _score(line: dict[str, Any] | None) -> Score | None:
    value = line.get("score") if line is not None else None
    try:
        return Score(**value) if isinstance(value, dict) else None
    except TypeError:
        return None  # of a trainer of another version
