"""How many checkpoints were committed since the last one that was copied to the second place."""

from __future__ import annotations

import sqlite3


def commits_since(connection: sqlite3.Connection, event: int) -> tuple[int, int]:
    """Return how many commits were recorded after an event, and the id of the newest of them (else that event's)."""
    row = connection.execute(
        "SELECT count(*) AS number, coalesce(max(id), ?) AS newest FROM events"
        " WHERE kind = 'checkpoint.committed' AND id > ?",
        (event, event),
    ).fetchone()
    return int(row["number"]), int(row["newest"])
