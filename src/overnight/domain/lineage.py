"""Of which jobs a model is made since a version came into use, by what its attempts have reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far an attempt was saved."""

    job: int
    first_step: int  # global step from which it went on
    step: int  # of its last checkpoint


def line_of(reached: Iterable[Reached], *, stands: int | None) -> dict[int, int]:
    """Return up to which step each job is in the model, in the order of training.

    An attempt that went on from an earlier step than others had reached has left them behind, as far as they lie beyond
    it; and so has a model that ``stands`` at an earlier one.
    """
    line: list[Reached] = []
    for one in reached:
        line = [*_until(line, one.first_step), one]
    if stands is not None:
        line = _until(line, stands)
    return {one.job: one.step for one in line}


def _until(line: list[Reached], step: int) -> list[Reached]:
    return [
        replace(one, step=min(one.step, step)) for one in line if one.step <= step or one.first_step < step
    ]  # fmt: skip
