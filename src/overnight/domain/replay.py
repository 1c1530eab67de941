"""Steps trained twice, compared to the last digit: where a recovery is exact they are equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NAMES = ("loss", "grad_norm")
"""The numbers of a step that hang on every weight before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first step that came out otherwise when it was trained again."""

    step: int  # global
    name: str  # of the number
    before: float
    again: float
    equal: int  # steps trained twice before it that were equal

    @property
    def reason(self) -> str:
        """Words for the user."""
        earlier = f"the {self.equal} steps before it were equal" if self.equal else "it is the first one trained twice"
        return f"step {self.step} was trained twice with different {self.name}: {self.before!r}, now {self.again!r}" + (
            f" ({earlier})"
        )


def by_step(lines: Iterable[Mapping[str, Any]], *, after: int) -> dict[int, Mapping[str, Any]]:
    """Return the lines of training steps later than one, by step; lines of evaluations are passed over."""
    return {
        line["step"]: line
        for line in lines
        if isinstance(line.get("step"), int) and line["step"] > after and line.get("loss") is not None
    }


def first_difference(
    before: Mapping[int, Mapping[str, Any]], again: Mapping[int, Mapping[str, Any]]
) -> Difference | None:
    """Return the first step told of by both in which a number differs in any digit, or None."""
    for equal, step in enumerate(sorted(before.keys() & again.keys())):
        for name in NAMES:
            old, new = before[step].get(name), again[step].get(name)
            if old is not None and new is not None and old != new:
                return Difference(step=step, name=name, before=old, again=new, equal=equal)
    return None
