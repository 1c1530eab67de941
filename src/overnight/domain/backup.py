"""Copies in a second place: which are due, and which stay, by plans with a reason for each item.

Days and weeks are those in which a checkpoint was made, in UTC, and only those that have a verified copy count: no
clock that jumps and no month switched off makes anything old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.checkpoint import step_of
from overnight.domain.version import number_of

DAY_S = 86_400
MONDAY = 3
"""Days from the first day of a week to 1970-01-01, which was a Thursday."""


class Kind(StrEnum):
    """What a copy is of."""

    VERSION = "version"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One copy in the second place, judged."""

    kind: Kind
    name: str  # "v003", "checkpoint-400"
    path: str
    made_at: float  # unix seconds, UTC: when the original was made; 0 where its manifest cannot be read
    bytes: int
    is_verified: bool  # read back there to the last byte, and as the original was
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One copy, and what becomes of it."""

    copy: Copy
    is_kept: bool
    reason: str


def kind_of(name: str) -> Kind | None:
    """Return what a name is the name of, or None."""
    if number_of(name) is not None:
        return Kind.VERSION
    return Kind.CHECKPOINT if step_of(name) is not None else None


def plan(copies: Iterable[Copy], *, daily: int, weekly: int) -> list[Item]:
    """Return one item for each copy, the newest first.

    Of checkpoints the newest of each of the last ``daily`` days and of the last ``weekly`` weeks stays, the newest of
    all and the one of the highest step always. Versions stay. What is not verified counts nowhere and is left alone.
    """
    ordered = sorted(copies, key=lambda copy: (copy.made_at, step_of(copy.name) or 0, copy.name), reverse=True)
    counted = [copy for copy in ordered if copy.kind is Kind.CHECKPOINT and copy.is_verified]
    reasons = _reasons(counted, daily=daily, weekly=weekly)
    items: list[Item] = []
    for copy in ordered:
        if not copy.is_verified:
            items.append(Item(copy=copy, is_kept=True, reason=f"counts as no copy, left alone: {copy.reason}"))
        elif copy.kind is Kind.VERSION:
            items.append(Item(copy=copy, is_kept=True, reason="copies of versions stay"))
        elif copy.name in reasons:
            items.append(Item(copy=copy, is_kept=True, reason=reasons[copy.name]))
        else:
            reason = f"neither the newest of one of the last {daily} days nor of one of the last {weekly} weeks"
            items.append(Item(copy=copy, is_kept=False, reason=reason))
    return items


def _reasons(counted: list[Copy], *, daily: int, weekly: int) -> dict[str, str]:
    """Return why each verified copy of a checkpoint stays, by name; the newest come first in ``counted``."""
    if not counted:
        return {}
    reasons = {counted[0].name: "the newest verified copy"}
    highest = max(counted, key=lambda copy: step_of(copy.name) or 0)
    reasons.setdefault(highest.name, "the verified copy of the highest step")
    days = _newest_of_each(counted, lambda copy: int(copy.made_at // DAY_S), daily)
    weeks = _newest_of_each(counted, lambda copy: (int(copy.made_at // DAY_S) + MONDAY) // 7, weekly)
    for number, name in enumerate(days, start=1):
        reasons.setdefault(name, f"the newest of its day, {number} of {daily}")
    for number, name in enumerate(weeks, start=1):
        reasons.setdefault(name, f"the newest of its week, {number} of {weekly}")
    return reasons


def _newest_of_each(counted: list[Copy], period: Callable[[Copy], int], limit: int) -> list[str]:
    first: dict[int, str] = {}
    for copy in counted:
        first.setdefault(period(copy), copy.name)
    return list(first.values())[:limit]


def versions_due(there: Iterable[str], copies: Mapping[str, Copy]) -> list[str]:
    """Return the versions without a verified copy, in order of their numbers."""
    due = [name for name in there if name not in copies or not copies[name].is_verified]
    return sorted(due, key=lambda name: number_of(name) or 0)


def is_checkpoint_due(*, commits: int, every: int, has_copy: bool) -> bool:
    """Return whether the newest checkpoint is to be copied: the first one at once, then each ``every``-th one.

    ``commits`` are the checkpoints since the last one that was copied; ``every`` 0 copies none.
    """
    return every > 0 and (not has_copy or commits >= every)
