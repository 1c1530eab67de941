"""What the operator wants, read once a tick, and what it means for the work at hand."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from overnight.database import intents
from overnight.database.intents import Intent
from overnight.publishing.settling import WISH


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The standing intents."""

    up: bool = False
    paused: str | None = None  # the reason
    stopped: str | None = None
    down: bool = False
    down_now: bool = False
    skip: int | None = None  # the job that is meant
    cancel: int | None = None
    why: str = ""  # of skip or cancel
    version: str | None = None  # token of the version that is wished for


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why the trainer is to leave."""

    reason: str
    is_immediate: bool = False  # it is not given the time to save


def read(connection: sqlite3.Connection) -> Wishes:
    """Return what the operator wants now."""
    found = intents.standing(connection)
    return Wishes(
        up="up" in found,
        paused=_reason(found.get("paused"), "paused"),
        stopped=_reason(found.get("stopped"), "stopped"),
        down="down" in found,
        down_now="down" in found and bool(found["down"].value.get("now")),
        skip=_job(found.get("skip")),
        cancel=_job(found.get("cancel")),
        version=str(found[WISH].value.get("token", "")) if WISH in found else None,
        why=str(next((found[n].value.get("reason") or "" for n in ("cancel", "skip") if n in found), "")),
    )


def why_stop(wishes: Wishes, *, job: int, signals: int) -> Stop | None:
    """Return why the trainer of a job is to leave, or None where it may go on."""
    if wishes.down_now or signals > 1:
        return Stop(reason="everything ends at once", is_immediate=True)
    if wishes.down or signals:
        return Stop(reason="everything ends")
    if wishes.cancel == job:
        return Stop(reason=wishes.why or "cancelled")
    if wishes.skip == job:
        return Stop(reason=wishes.why or "skipped")
    if wishes.paused is not None:
        return Stop(reason=wishes.paused)
    return None


def is_leaving(wishes: Wishes, *, signals: int) -> bool:
    """Return whether the loop is to end."""
    return wishes.down or signals > 0


def _reason(intent: Intent | None, default: str) -> str | None:
    return None if intent is None else str(intent.value.get("reason") or default)


def _job(intent: Intent | None) -> int | None:
    value: Any = intent.value.get("job") if intent is not None else None
    return value if isinstance(value, int) else None
