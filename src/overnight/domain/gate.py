"""Whether a job may become the model: what it learnt, what it undid, and why that is too much.

Three rules, each by rows that are never trained:

- *Nothing earlier is undone*: the loss on an earlier set may rise, over all jobs since it was lowest, by ``margin`` of
  what was learnt (the fall from the loss before it was taught), or of the loss itself where nothing was.
- *Something is learnt*: the loss on the job's own set is lower than before the job.
- *It hangs on the question*: the answers of the own set fit their own questions better than others, beyond doubt. A
  file whose answers stand in the wrong places lowers the loss too, by what its answers have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.judgement import Cell, Score, Skill

FLOOR = 0.01
"""A rise of the loss below this is none, however little was learnt."""

PAIRS = 8
"""With fewer pairs of question and answer nobody can tell whether they belong together."""

DOUBT = 3.0
"""So many standard errors are beyond doubt; with few pairs more, as Student's distribution has it."""

SMALLEST_PAIRING = 0.02
"""Less than so much of a token's loss is no knowledge, however sure it is."""


class Verdict(StrEnum):
    """What the gate says of a job."""

    PASSED = "passed"
    WARNED = "warned"
    BLOCKED = "blocked"
    UNJUDGED = "unjudged"  # there is nothing to judge by


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a job that is trained."""

    verdict: Verdict
    reason: str
    harmed: frozenset[str] = frozenset()  # ids of the sets that it harms


def decide(cells: Sequence[Cell], skills: Mapping[str, Skill], *, gate: str, margin: float) -> Decision:
    """Judge a job by its cells; ``skills`` are those before it, by set."""
    if not cells:
        return Decision(verdict=Verdict.UNJUDGED, reason="no rows are held out: there is nothing to judge by")
    found = [(cell.held_out.id, problem) for cell in cells if (problem := _problem(cell, skills, margin)) is not None]
    harmed = frozenset(name for name, _ in found)
    if not found:
        return Decision(verdict=Verdict.PASSED, reason=_praise(cells, skills, margin))
    told = "; ".join(problem for _, problem in found)
    if gate == "off":
        return Decision(verdict=Verdict.PASSED, reason=f"the gate is off; it would say: {told}", harmed=harmed)
    verdict = Verdict.BLOCKED if gate == "block" else Verdict.WARNED
    return Decision(verdict=verdict, reason=told, harmed=harmed)


def _problem(cell: Cell, skills: Mapping[str, Skill], margin: float) -> str | None:
    file = cell.held_out.file
    skill = skills.get(cell.held_out.id)
    if cell.after is None or (cell.before is None and skill is None):
        return f"{file} could not be judged: {cell.skipped or 'no figure'}"
    if skill is not None and skill.mark is not None:
        return _undone(file, cell, skill, skill.mark, margin)
    return _unlearnt(file, cell) or _unpaired(file, cell.after)


def _undone(file: str, cell: Cell, skill: Skill, mark: float, margin: float) -> str | None:
    """Return in words that an earlier skill is harmed beyond the margin, by this job too; None where it is not."""
    assert cell.after is not None
    allowed, learnt = _allowed(skill, mark, margin)
    rise = cell.after.loss - mark
    if rise <= allowed or (cell.before is not None and cell.after.loss <= cell.before.loss):
        return None
    share = f", {100 * rise / learnt:.0f} % of what was learnt is undone" if learnt > 0 else ""
    return (
        f"{file} is forgotten: its loss rose from {mark:.3f} to {cell.after.loss:.3f}{share};"
        f" evaluation.gate_margin {margin:g} allows {mark + allowed:.3f}"
    )


def _allowed(skill: Skill, mark: float, margin: float) -> tuple[float, float]:
    """Return by how much the loss may rise above the mark, and how much was learnt."""
    learnt = max(0.0, skill.untaught - mark) if skill.untaught is not None else 0.0
    return max(FLOOR, margin * (learnt if learnt > 0 else mark)), learnt


def _unlearnt(file: str, cell: Cell) -> str | None:
    if cell.before is None or cell.after is None or cell.after.loss < cell.before.loss:
        return None
    return (
        f"nothing is learnt: the loss on the rows of {file} that were held out went from {cell.before.loss:.3f} to"
        f" {cell.after.loss:.3f}"
    )


def _unpaired(file: str, after: Score) -> str | None:
    if after.pairing is None or after.pairing_error is None or is_paired(after):
        return None
    return (
        f"what {file} taught does not hang on the questions: {after.pairs} held-out answers fit other questions as well"
        f" as their own (loss {after.pairing:+.3f}, error {after.pairing_error:.3f}); are they in the right rows?"
    )


def is_paired(score: Score) -> bool:
    """Return whether answers fit their own questions beyond doubt, or nobody can tell."""
    if score.pairing is None or score.pairing_error is None or score.pairs < PAIRS:
        return True
    doubt = DOUBT * (1 + 4 / score.pairs) * score.pairing_error
    return score.pairing > max(doubt, SMALLEST_PAIRING)


def _praise(cells: Sequence[Cell], skills: Mapping[str, Skill], margin: float) -> str:
    own = next((cell for cell in cells if cell.is_own and cell.held_out.id not in skills), None)
    earlier = sum(cell.held_out.id in skills for cell in cells)
    parts = []
    if own is not None and own.before is not None and own.after is not None:
        parts.append(f"learnt, loss {own.before.loss:.3f} -> {own.after.loss:.3f}")
    if earlier:
        parts.append(f"{earlier} earlier set{'s' if earlier > 1 else ''} kept within {100 * margin:g} %")
    return "; ".join(parts)
