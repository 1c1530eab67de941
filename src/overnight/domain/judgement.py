"""What a job did to each skill: the loss on rows that are never trained, before it and after it.

A *held-out set* is a share of one dataset's rows. Which rows they are hangs on the dataset's content and the share
alone, so they are the same for ever. What a job taught is told by its own set; what was forgotten by all earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A set of rows that are never trained."""

    id: str
    dataset: str  # SHA-256 of the stored rows
    share: float
    examples: int  # rows evaluated at most: the first ones of the set, in the file's order
    supervise: str  # which of their tokens count
    file: str  # the shown name of the file
    job: int  # the first that held them out


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one model makes of one set."""

    loss: float  # mean over the supervised tokens
    accuracy: float  # share of the supervised tokens that the model would have said
    rows: int
    tokens: int
    pairs: int = 0  # rows whose answer was also tried behind another row's question
    pairing: float | None = None  # by how much the loss is higher there, a token
    pairing_error: float | None = None  # standard error of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One job, one set."""

    job: int
    held_out: HeldOut
    is_own: bool  # the job's own set
    before: Score | None
    after: Score | None
    skipped: str = ""  # why a score is missing
    is_let_pass: bool = False  # the harm that the gate saw was accepted: what is left counts as the skill from then on


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What is known of one set over the life of the model."""

    held_out: HeldOut
    untaught: float | None  # the loss before the job that taught it
    best: float | None  # the lowest loss since
    mark: float | None  # what the gate measures by: the lowest loss since harm was last let pass
    now: Score | None

    @property
    def learnt(self) -> float:
        """How much the loss went down by what was taught; 0 where it did not."""
        return max(0.0, self.untaught - self.best) if self.untaught is not None and self.best is not None else 0.0

    @property
    def forgotten(self) -> float | None:
        """The share of it that is lost: 0 none, 1 all; None where nothing was learnt or nobody knows."""
        if self.best is None or self.now is None or self.learnt <= 0:
            return None
        return max(0.0, self.now.loss - self.best) / self.learnt


def held_out_id(dataset: str, share: float) -> str:
    """Return the name of a set."""
    return f"{dataset}:{share:g}"


def skill_of(cells: Sequence[Cell]) -> Skill:
    """Return what is known of one set from its cells, oldest first (at least one)."""
    untaught: float | None = None
    best: float | None = None
    mark: float | None = None
    now: Score | None = None
    for cell in cells:
        if untaught is None and cell.is_own and cell.before is not None:
            untaught = cell.before.loss
        if cell.after is not None:
            now = cell.after
            best = now.loss if best is None else min(best, now.loss)
            mark = now.loss if mark is None or cell.is_let_pass else min(mark, now.loss)
    return Skill(held_out=cells[0].held_out, untaught=untaught, best=best, mark=mark, now=now)


def skills(cells: Iterable[Cell]) -> list[Skill]:
    """Return the skill of each set, in the order in which they were first judged; cells oldest first."""
    by_set: dict[str, list[Cell]] = {}
    for cell in cells:
        by_set.setdefault(cell.held_out.id, []).append(cell)
    return [skill_of(found) for found in by_set.values()]


def told(cell: Cell) -> str:
    """Return one cell in plain numbers."""
    if cell.after is None:
        return f"not judged: {cell.skipped or 'no figure'}"
    before = f"{cell.before.loss:.3f} -> " if cell.before is not None else ""
    return f"loss {before}{cell.after.loss:.3f}, {100 * cell.after.accuracy:.0f} % of the tokens right"


def forgotten_words(skill: Skill) -> str:
    """Return how much of a skill is lost, in plain numbers."""
    if skill.now is None or skill.best is None:
        return "not judged"
    share = skill.forgotten
    rise = f"loss {skill.best:.3f} -> {skill.now.loss:.3f}"
    return f"{100 * share:.0f} % forgotten ({rise})" if share is not None else rise
