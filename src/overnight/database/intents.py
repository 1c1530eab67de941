"""What the operator wants: one row an intent, kept until it is met or withdrawn.

- ``up``      {}                 the daemon should run (set by up, gone after down)
- ``paused``  {reason}           no attempt runs until resume
- ``stopped`` {reason}           the current job ends, then no more is taken
- ``down``    {now: bool}        everything of this workspace ends
- ``skip``    {job, reason}      this very job is set aside
- ``cancel``  {job, reason}      this very job is cancelled while it runs
- ``consolidate`` {description, token}  a version is made behind the current job
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One wish of the operator."""

    name: str
    value: dict[str, Any]
    at: float  # unix seconds: since when


def wish(connection: sqlite3.Connection, name: str, value: dict[str, Any], *, now: float) -> None:
    """Record an intent; the latest word counts, the first time stays where the word is the same."""
    connection.execute(
        "INSERT INTO intents (name, value, at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
        " at = CASE WHEN value = excluded.value THEN at ELSE excluded.at END, value = excluded.value",
        (name, json.dumps(value, sort_keys=True), now),
    )


def withdraw(connection: sqlite3.Connection, name: str) -> bool:
    """Remove an intent; return whether it was there."""
    return connection.execute("DELETE FROM intents WHERE name = ?", (name,)).rowcount > 0


def standing(connection: sqlite3.Connection) -> dict[str, Intent]:
    """Return all intents by name."""
    rows = connection.execute("SELECT * FROM intents")
    return {row["name"]: Intent(name=row["name"], value=json.loads(row["value"]), at=row["at"]) for row in rows}
