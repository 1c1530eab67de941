"""Whether a working trainer has grown so big that a fresh process is the better one: a leak, told from honest need."""

from __future__ import annotations

from dataclasses import dataclass

GROWN_TIMES = 2.0
"""A leak is looked for where an attempt holds so many times what it held after its first steps ..."""

GROWN_SHARE = 0.05
"""... has grown by this share of all memory ..."""

SHORT_SHARE = 0.10
"""... and less than this share of it is left. All three: a big cache on an empty machine harms nobody."""

LEAST_GROWTH = 1.25
"""A fresh process must be smaller by this at least, or it would help against nothing."""

PAYS_OFF = 10.0
"""A fresh process is worth its start when this one worked so many times as long as it took to start: never a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The tightest limit on what a process may hold."""

    total_bytes: int
    available_bytes: int
    where: str  # "the machine" | "its control group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What an attempt holds, and how that came about."""

    settled_bytes: int  # after its first steps
    resident_bytes: int  # now
    started_s: float  # from its launch to its first steps
    worked_s: float  # since then


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is to be done."""

    is_told: bool  # worth telling
    is_ended: bool  # it is to save and leave, a fresh process goes on
    reason: str


FINE = Judgement(is_told=False, is_ended=False, reason="")


def judge(print_: Footprint, room: Room | None, *, max_bytes: float | None) -> Judgement:
    """Judge what a trainer holds, against the limit that is set and against what is left where it runs."""
    held, settled = print_.resident_bytes, print_.settled_bytes
    grown = f"the trainer has grown from {giga(settled)} after its first steps to {giga(held)}"
    if max_bytes is not None and held > max_bytes:
        why = f"{grown}, watch.max_memory_gb is {max_bytes / 1e9:g}"
        if held < LEAST_GROWTH * settled:
            return Judgement(
                is_told=True,
                is_ended=False,
                reason=f"{why}: a fresh one would be as big, so it goes on; raise the limit",
            )
        return _fresh(print_, why)
    if room is None or not _is_leak(print_, room):
        return FINE
    return _fresh(print_, f"{grown}, and {room.where} has {giga(room.available_bytes)} left")


def _is_leak(print_: Footprint, room: Room) -> bool:
    growth = print_.resident_bytes - print_.settled_bytes
    return (
        print_.resident_bytes >= GROWN_TIMES * print_.settled_bytes
        and growth >= GROWN_SHARE * room.total_bytes
        and room.available_bytes < SHORT_SHARE * room.total_bytes
    )


def _fresh(print_: Footprint, why: str) -> Judgement:
    if print_.worked_s < PAYS_OFF * print_.started_s:
        return Judgement(
            is_told=True, is_ended=False, reason=f"{why}; it grew too fast for a fresh one to help: it goes on"
        )
    return Judgement(is_told=True, is_ended=True, reason=f"{why}: it saves, and a fresh process goes on")


def giga(size: float) -> str:
    """Return a number of bytes for people."""
    return f"{size / 1e9:.2f} GB"
