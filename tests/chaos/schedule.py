"""Which fault hits whom, and when: a stream that follows from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

WHAT = {
    "kill": 50,
    "several": 8,  # members killed at the same instant
    "tree": 5,  # all of them, and then up as an operator or systemd would
    "term": 6,
    "crash": 5,  # SIGSEGV, SIGABRT
    "stop": 5,  # left stopped
    "pause": 7,  # stopped, and continued
    "freeze": 4,  # frozen, killed while frozen, thawed
    "starve": 4,  # hogs on every core, the victim last in line
    "second": 3,  # another one started beside it
    "rot": 3,  # everything killed, the newest checkpoint damaged, up
}
"""Kinds of fault, and how often each of them."""

VICTIMS = {"trainer": 50, "loop": 22, "watchdog": 16, "admission": 6, "spare": 6}

MOMENTS = {
    "trainer": {"train": 35, "save": 30, "load": 8, "launch": 6, "exit": 6, "evaluate": 5, "retention": 5, "settle": 5},
    "loop": {"train": 25, "save": 10, "launch": 15, "load": 5, "exit": 10, "settle": 15, "retention": 10, "intake": 10},
    "watchdog": {"train": 70, "save": 10, "launch": 10, "intake": 10},
    "admission": {"intake": 100},
    "spare": {"train": 60, "launch": 40},
    "": {"train": 40, "save": 25, "launch": 10, "load": 5, "exit": 5, "settle": 5, "retention": 5, "intake": 5},
}
"""When a victim is hit, and how often then; "" is for faults that hit several."""

TARGETS = {
    "term": ("trainer", "loop", "watchdog"),
    "crash": ("trainer", "loop", "watchdog", "spare"),
    "stop": ("trainer", "loop", "watchdog", "admission", "spare"),
    "pause": ("trainer", "loop", "watchdog"),
    "freeze": ("trainer", "loop", "watchdog"),
    "starve": ("trainer", "loop"),
    "second": ("loop", "watchdog"),
}
"""Whom a kind of fault may hit, where that is not everybody."""

LONGEST_DELAY_S = 0.015
"""Between the moment that was waited for and the blow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One fault to come."""

    number: int
    what: str
    victims: tuple[str, ...]
    moment: str
    steps: int  # newly trained steps to wait for before
    delay_s: float
    lasting_s: float  # of a pause, a frost, a famine
    luck: float  # whatever else is to be chosen, 0 to 1

    @property
    def shown(self) -> str:
        steps = f" after {self.steps} steps" if self.steps else ""
        return f"{self.what} {'+'.join(self.victims)} at {self.moment}{steps}"


def plans(seed: int, *, without: frozenset[str] = frozenset()) -> Iterator[Plan]:
    """Yield faults without end; equal seeds yield equal faults. ``without`` leaves out kinds and victims."""
    source = random.Random(seed)
    number = 0
    while True:
        number += 1
        what = _pick(source, WHAT, without)
        victims = _victims(source, what, without)
        moments = MOMENTS.get(victims[0], MOMENTS[""]) if len(victims) == 1 else MOMENTS[""]
        if what in ("starve", "second", "rot"):
            moments = {"train": 1}
        plan = Plan(
            number=number,
            what=what,
            victims=victims,
            moment=_pick(source, moments, without),
            steps=source.choice((0, 0, 0, 1, 2, 3, 5, 8)),
            delay_s=source.random() ** 2 * LONGEST_DELAY_S,
            lasting_s=source.uniform(0.1, 1.2),
            luck=source.random(),
        )
        yield plan


def _victims(source: random.Random, what: str, without: frozenset[str]) -> tuple[str, ...]:
    if what in ("tree", "rot"):
        return ("everything",)
    if what == "several":
        there = [name for name in ("trainer", "loop", "watchdog", "spare") if name not in without]
        return tuple(sorted(source.sample(there, source.choice((2, 2, 3) if len(there) > 2 else (2,)))))
    names = TARGETS.get(what, tuple(VICTIMS))
    return (_pick(source, {name: VICTIMS[name] for name in names}, without),)


def _pick(source: random.Random, weights: dict[str, int], without: frozenset[str]) -> str:
    left = {name: weight for name, weight in weights.items() if name not in without}
    return source.choices(list(left), weights=list(left.values()))[0]
