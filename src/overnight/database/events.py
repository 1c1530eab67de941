"""The append-only history: what happened, when, why."""

from __future__ import annotations

import json
import sqlite3
from typing import Any


def record(
    connection: sqlite3.Connection, *, now: float, kind: str, message: str, level: str = "info", **data: Any
) -> None:
    """Append one event. ``kind`` is a short name such as "job.queued"; ``level`` info, warning or error."""
    connection.execute(
        "INSERT INTO events (at, kind, level, message, data) VALUES (?, ?, ?, ?, ?)",
        (now, kind, level, message, json.dumps(data, ensure_ascii=True, default=str)),
    )


def since(connection: sqlite3.Connection, event: int = 0, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Return events after an id, oldest first."""
    rows = connection.execute("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", (event, limit))
    return [_to_event(row) for row in rows]


def newest(connection: sqlite3.Connection, *, limit: int = 50) -> list[dict[str, Any]]:
    """Return the last events, oldest first."""
    rows = connection.execute("SELECT * FROM events ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
    return [_to_event(row) for row in reversed(rows)]


def time_of(connection: sqlite3.Connection, event: int) -> float | None:
    """Return when an event happened (unix seconds), None where there is none of that id."""
    row = connection.execute("SELECT at FROM events WHERE id = ?", (event,)).fetchone()
    return float(row["at"]) if row is not None else None


def newest_of(connection: sqlite3.Connection, kind: str, *, after: int = 0) -> dict[str, Any] | None:
    """Return the last event of a kind, or None; of a long history only what came after an id is read."""
    row = connection.execute(
        "SELECT * FROM events WHERE kind = ? AND id > ? ORDER BY id DESC LIMIT 1", (kind, after)
    ).fetchone()
    return _to_event(row) if row is not None else None


def of_kind_after(connection: sqlite3.Connection, kind: str, event: int) -> list[dict[str, Any]]:
    """Return the events of a kind after an id, oldest first."""
    rows = connection.execute("SELECT * FROM events WHERE kind = ? AND id > ? ORDER BY id", (kind, event))
    return [_to_event(row) for row in rows]


def of_kinds_after(
    connection: sqlite3.Connection, kinds: tuple[str, ...], event: int, *, limit: int
) -> list[dict[str, Any]]:
    """Return events of some kinds after an id, oldest first."""
    rows = connection.execute(
        f"SELECT * FROM events WHERE id > ? AND kind IN ({','.join('?' * len(kinds))}) ORDER BY id LIMIT ?",
        (event, *kinds, limit),
    )
    return [_to_event(row) for row in rows]


def _to_event(row: sqlite3.Row) -> dict[str, Any]:
    event = dict(row)
    event["data"] = json.loads(event["data"])
    return event
