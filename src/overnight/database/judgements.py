"""What the judge found: held-out sets, and what each job did to the loss on them."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overnight.database.connection import transaction
from overnight.domain.job import Job
from overnight.domain.judgement import Cell, HeldOut, Score, held_out_id

if TYPE_CHECKING:
    from overnight.domain.config import Settings  # slow to import, and those who only read need it not

_SET_COLUMNS = "held_out.id, dataset, share, examples, supervise, file, held_out.job"

_CELLS = (
    f"SELECT {_SET_COLUMNS}, judgements.job AS judged, is_own, before, after, skipped, is_let_pass FROM scores"
    " JOIN judgements ON judgements.id = judgement JOIN held_out ON held_out.id = scores.held_out"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found after one job."""

    job: int
    file: str
    step: int
    verdict: str
    reason: str
    is_current: bool
    at: float


def hold_out(connection: sqlite3.Connection, job: Job, settings: Settings) -> HeldOut | None:
    """Return a job's own set, made where it is new; None where the job holds nothing out."""
    share = settings.evaluation.holdout
    if share <= 0 or job.dataset is None:
        return None
    name = held_out_id(job.dataset, share)
    connection.execute(
        "INSERT INTO held_out (id, dataset, share, examples, supervise, file, job) VALUES (?,?,?,?,?,?,?)"
        " ON CONFLICT (id) DO NOTHING",
        (name, job.dataset, share, settings.evaluation.max_examples, settings.train.supervise, job.file, job.id),
    )
    return _set(connection.execute(f"SELECT {_SET_COLUMNS} FROM held_out WHERE id = ?", (name,)).fetchone())


def all_sets(connection: sqlite3.Connection) -> list[HeldOut]:
    """Return every set that was ever held out, oldest first: none of their rows is ever trained."""
    return [_set(row) for row in connection.execute(f"SELECT {_SET_COLUMNS} FROM held_out ORDER BY rowid")]


def standing(connection: sqlite3.Connection, reached: Mapping[int, int] | None) -> set[int]:
    """Return the judged jobs that the model stands on: let pass, and in it as far as they were judged.

    ``reached`` tells up to which step each job is in the model; None where nobody can tell.
    """
    rows = connection.execute("SELECT job, step FROM judgements WHERE is_current")
    return {row["job"] for row in rows if reached is None or row["step"] <= reached.get(row["job"], -1)}


def learnt_sets(connection: sqlite3.Connection, jobs: Set[int]) -> list[HeldOut]:
    """Return the own sets of some jobs, in the order in which they were learnt."""
    rows = connection.execute(
        f"SELECT {_SET_COLUMNS}, judgements.job AS judged FROM scores JOIN judgements ON judgements.id = judgement"
        " JOIN held_out ON held_out.id = scores.held_out WHERE is_own ORDER BY judgement"
    )
    return list(dict.fromkeys(_set(row) for row in rows if row["judged"] in jobs))


def record(
    connection: sqlite3.Connection,
    job: int,
    cells: Iterable[Cell],
    *,
    step: int,
    verdict: str,
    reason: str,
    is_current: bool,
    now: float,
) -> None:
    """Write down what was found after a job, all or nothing; what an earlier life of the same job left gives way."""
    with transaction(connection):
        connection.execute("DELETE FROM judgements WHERE job = ?", (job,))
        judgement = connection.execute(
            "INSERT INTO judgements (job, step, verdict, reason, is_current, at) VALUES (?,?,?,?,?,?)",
            (job, step, verdict, reason, int(is_current), now),
        ).lastrowid
        connection.executemany(
            "INSERT INTO scores (judgement, held_out, is_own, before, after, skipped, is_let_pass)"
            " VALUES (?,?,?,?,?,?,?)",
            [
                (
                    judgement, cell.held_out.id, int(cell.is_own), _text(cell.before), _text(cell.after), cell.skipped,
                    int(cell.is_let_pass),
                )
                for cell in cells
            ],
        )  # fmt: skip


def listing(connection: sqlite3.Connection, *, limit: int | None = None) -> list[Judgement]:
    """Return what was found, oldest first; the newest ``limit`` of them."""
    rows = connection.execute(
        "SELECT judgements.job, file, step, verdict, judgements.reason, is_current, at FROM judgements"
        " JOIN jobs ON jobs.id = judgements.job ORDER BY judgements.id DESC LIMIT ?",
        (-1 if limit is None else limit,),
    ).fetchall()
    return [
        Judgement(
            job=row["job"], file=row["file"], step=row["step"], verdict=row["verdict"], reason=row["reason"],
            is_current=bool(row["is_current"]), at=row["at"],
        )
        for row in reversed(rows)
    ]  # fmt: skip


def state(connection: sqlite3.Connection) -> tuple[int, ...]:
    """Return numbers that differ whenever something was judged, accepted or taken back since."""
    row = connection.execute("SELECT count(*), total(id), total(is_current) FROM judgements").fetchone()
    return tuple(int(number) for number in row)


def cells(connection: sqlite3.Connection, *, current: bool) -> list[Cell]:
    """Return the cells of the matrix, oldest first; with ``current`` only of the jobs that the model stands on."""
    where = "WHERE is_current" if current else ""
    return [_cell(row) for row in connection.execute(f"{_CELLS} {where} ORDER BY judgement, scores.rowid")]


def cells_of(connection: sqlite3.Connection, job: int) -> list[Cell]:
    """Return the cells of one job."""
    return [
        _cell(row) for row in connection.execute(f"{_CELLS} WHERE judgements.job = ? ORDER BY scores.rowid", (job,))
    ]


def set_current(connection: sqlite3.Connection, job: int, *, is_current: bool) -> None:
    """Say whether the model stands on a job; accepted harm counts as let pass. Inside the caller's transaction."""
    connection.execute("UPDATE judgements SET is_current = ? WHERE job = ?", (int(is_current), job))
    if is_current:
        connection.execute(
            "UPDATE scores SET is_let_pass = 1 WHERE judgement IN (SELECT id FROM judgements WHERE job = ?)", (job,)
        )


def _cell(row: sqlite3.Row) -> Cell:
    return Cell(
        job=row["judged"], held_out=_set(row), is_own=bool(row["is_own"]), before=_score(row["before"]),
        after=_score(row["after"]), skipped=row["skipped"], is_let_pass=bool(row["is_let_pass"]),
    )  # fmt: skip


def _set(row: sqlite3.Row) -> HeldOut:
    return HeldOut(
        id=row["id"], dataset=row["dataset"], share=row["share"], examples=row["examples"],
        supervise=row["supervise"], file=row["file"], job=row["job"],
    )  # fmt: skip


def _score(text: str | None) -> Score | None:
    value: dict[str, Any] | None = json.loads(text) if text else None
    return Score(**value) if value is not None else None


def _text(score: Score | None) -> str | None:
    return json.dumps(dataclasses.asdict(score)) if score is not None else None
