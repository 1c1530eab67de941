"""The safeguard board: each guard with its state, since when, and when it last acted."""

from __future__ import annotations

import sqlite3
from typing import Any

from overnight.database import overview
from overnight.disk import config, files, locked
from overnight.disk.layout import Layout
from overnight.domain.memory import giga
from overnight.domain.picture import age, iso
from overnight.launchers.memory import resident_bytes, room_of
from overnight.status.snapshot import Process, Snapshot

GIGABYTE = 1e9


def guards(layout: Layout, connection: sqlite3.Connection, shot: Snapshot) -> list[dict[str, Any]]:
    """Return the board, one entry a guard: name, state, since, last_acted, note."""
    return [
        _process("watchdog", shot.watchdog, "brings the daemon back", connection, ("watchdog.", "daemon.restarted")),
        _process("daemon", shot.daemon, "watches the trainer, settles and dispatches", connection, ("attempt.ended",)),
        _heartbeat(shot, connection),
        _checkpoint(shot, connection),
        _config_lock(layout, connection),
        _disk(layout, connection),
        _memory(shot, connection),
    ]


def _guard(name: str, state: str, *, note: str, since: float | None = None, acted: float | None) -> dict[str, Any]:
    return {"name": name, "state": state, "since": iso(since), "last_acted": iso(acted), "note": note}


def _process(
    name: str, process: Process | None, note: str, connection: sqlite3.Connection, kinds: tuple[str, ...]
) -> dict[str, Any]:
    state = process.state if process is not None else "not running"
    since = process.since if process is not None else None
    return _guard(name, state, note=note, since=since, acted=overview.last_event_at(connection, kinds))


def _heartbeat(shot: Snapshot, connection: sqlite3.Connection) -> dict[str, Any]:
    acted = overview.last_event_at(connection, ("attempt.stuck",))
    if shot.attempt is None or shot.heartbeat is None:
        return _guard("anti-stuck", "nothing to watch", note="ends a trainer without progress", acted=acted)
    note = f"{shot.heartbeat.phase.value}, last beat {age(shot.at - shot.heartbeat.written_at)} ago"
    return _guard("anti-stuck", "watching", note=note, since=shot.attempt.started_at, acted=acted)


def _checkpoint(shot: Snapshot, connection: sqlite3.Connection) -> dict[str, Any]:
    states = {True: "verified", False: "DAMAGED", None: "not yet read"}
    state = "no checkpoint" if shot.checkpoint is None else states[shot.is_checkpoint_verified]
    acted = overview.last_event_at(connection, ("checkpoint.",))
    return _guard("checkpoints", state, note="only a whole checkpoint is resumed", acted=acted)


def _config_lock(layout: Layout, connection: sqlite3.Connection) -> dict[str, Any]:
    lock = locked.read(layout)
    state = "UNREADABLE" if not lock.readable else f"locked by {lock.source}" if lock.values else "open"
    acted = overview.last_event_at(connection, ("config.",))
    return _guard("config lock", state, note="settings that belong to the checkpoints stay", acted=acted)


def _disk(layout: Layout, connection: sqlite3.Connection) -> dict[str, Any]:
    free, wanted = files.free_bytes(layout.root), config.raw_number(layout, "disk", "min_free_gb", 2.0) * GIGABYTE
    state = "enough" if free >= wanted else "LOW"
    note = f"{free / GIGABYTE:.1f} GB free, {wanted / GIGABYTE:g} GB wanted"
    return _guard("disk", state, note=note, acted=overview.last_event_at(connection, ("disk.",)))


def _memory(shot: Snapshot, connection: sqlite3.Connection) -> dict[str, Any]:
    acted = overview.last_event_at(connection, ("attempt.memory",))
    note = "a trainer that leaks saves, and a fresh process goes on"
    if shot.attempt is None or shot.heartbeat is None:
        return _guard("memory", "nothing to watch", note=note, acted=acted)
    held, room = resident_bytes(shot.heartbeat.pid), room_of(shot.heartbeat.pid)
    if held is not None and room is not None:
        note = f"the trainer holds {giga(held)}, {room.where} has {giga(room.available_bytes)} left"
    return _guard("memory", "watching", note=note, since=shot.attempt.started_at, acted=acted)
