"""The safeguard board: each guard with its state, since when, and when it last acted and why.

Most guards live in the loop: where it is not running, or does not move, they are off or blind, and the board says so.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from overnight.database import overview
from overnight.disk import config, files, locked
from overnight.disk import inbox as inbox_rules
from overnight.disk.layout import Layout
from overnight.domain.memory import giga
from overnight.domain.picture import age, iso
from overnight.launchers.memory import resident_bytes, room_of
from overnight.status.snapshot import Process, Snapshot

GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class _Board:
    layout: Layout
    connection: sqlite3.Connection
    shot: Snapshot
    newest: list[tuple[str, str, int]]  # kind, level, id of the newest event of both

    def guard(
        self,
        name: str,
        state: str,
        *,
        does: str,
        acts: tuple[str, ...],
        note: str = "",
        since: float | None = None,
        but_level: str = "",
    ) -> dict[str, Any]:
        """Return one line; ``acts`` are what the kinds of events begin with by which it shows that it acted."""
        acted = max(
            (event for kind, level, event in self.newest if kind.startswith(acts) and level != but_level), default=0
        )
        last = overview.told_at(self.connection, acted)
        return {
            "name": name,
            "state": state,
            "since": iso(since),
            "last_acted": iso(last[0]) if last is not None else None,
            "why": last[1] if last is not None else None,
            "does": does,
            "note": note,
        }

    def in_loop(self, name: str, state: str, *, since: float | None = None, **told: Any) -> dict[str, Any]:
        """Return one line of a guard that lives in the loop: without it, it is off."""
        daemon = self.shot.daemon
        if daemon is None:
            return self.guard(name, "off: no daemon", since=None, **told)
        if daemon.state != "running":
            return self.guard(name, f"blind: daemon {daemon.state}", since=daemon.since, **told)
        return self.guard(name, state, since=since if since is not None else daemon.since, **told)


def guards(layout: Layout, connection: sqlite3.Connection, shot: Snapshot) -> list[dict[str, Any]]:
    """Return the board, one entry a guard: name, state, since, last_acted, why, does, note."""
    board = _Board(layout, connection, shot, overview.newest_of_each_kind(connection))
    return [
        board.guard(
            "watchdog", **_process(shot.watchdog), does="brings back a daemon that is gone or hangs",
            acts=("daemon.restarted", "daemon.hung"),
        ),
        board.guard(
            "daemon", **_process(shot.daemon), does="watches the trainer, brings back the watchdog",
            acts=("watchdog.", "attempt.adopted", "daemon.lock_deleted", "daemon.folder_made"),
        ),
        _anti_stuck(board),
        board.in_loop(
            "crash detector", "active", does="finds out why an attempt ended", acts=("attempt.ended", "attempt.orphan"),
            but_level="info",
        ),
        _checkpoint(board),
        _config_lock(board),
        _one_trainer(board),
        _intake(board),
        _queue(board),
        _disk(board),
        _memory(board),
        _cleanup(board),
    ]  # fmt: skip


def _process(process: Process | None) -> dict[str, Any]:
    if process is None:
        return {"state": "not running"}
    return {"state": process.state, "note": f"pid {process.pid or 'unknown'}", "since": process.since}


def _anti_stuck(board: _Board) -> dict[str, Any]:
    shot = board.shot
    told: dict[str, Any] = {
        "does": "ends or continues a trainer without progress",
        "acts": ("attempt.stuck", "attempt.unstuck", "attempt.woken", "attempt.unkillable"),
    }
    if shot.attempt is None or shot.heartbeat is None:
        return board.in_loop("anti-stuck", "active, nothing to watch", **told)
    note = f"{shot.heartbeat.phase.value}, last beat {age(shot.at - shot.heartbeat.written_at)} ago"
    note += f", {shot.limit}" if shot.limit else ""
    return board.in_loop("anti-stuck", "watching", note=note, since=shot.attempt.started_at, **told)


def _checkpoint(board: _Board) -> dict[str, Any]:
    shot = board.shot
    states = {True: "verified", False: "DAMAGED", None: "not yet read"}
    state = "no checkpoint" if shot.checkpoint is None else states[shot.is_checkpoint_verified]
    manifest = shot.checkpoint.manifest if shot.checkpoint is not None else None
    return board.guard(
        "checkpoints", state, does="only a whole checkpoint is resumed", acts=("checkpoint.set_aside",),
        note=f"step {shot.checkpoint.step}" if shot.checkpoint is not None else "",
        since=manifest.created_at if manifest is not None else None,
    )  # fmt: skip


def _config_lock(board: _Board) -> dict[str, Any]:
    lock = locked.read(board.layout)
    state = "UNREADABLE" if not lock.readable else f"locked by {lock.source}" if lock.values else "open"
    note = ", ".join(f"{key} {lock.values[key]}" for key in ("base_model", "max_length") if key in lock.values)
    return board.guard(
        "config lock", state, does="settings that belong to the checkpoints stay", acts=("config.refused",), note=note
    )


def _one_trainer(board: _Board) -> dict[str, Any]:
    holder = files.lock_holder(board.layout.model_lock)
    state = "free" if holder is None else f"held by pid {holder.get('pid', 'unknown')}"
    note = f"attempt {holder['attempt']}" if holder is not None and holder.get("attempt") else ""
    since = holder.get("since") if holder is not None else None
    return board.guard(
        "one trainer", state, does="a kernel lock: never two trainers on one model", note=note,
        acts=("attempt.orphan", "attempt.unkillable"), since=since if isinstance(since, int | float) else None,
    )  # fmt: skip


def _intake(board: _Board) -> dict[str, Any]:
    has_work = inbox_rules.has_work(board.layout)
    return board.in_loop(
        "intake", "active" if not has_work else "active, files wait", does="judges each file before it is queued",
        acts=("inbox.", "intake.", "job.rejected"),
    )  # fmt: skip


def _queue(board: _Board) -> dict[str, Any]:
    shot, wishes = board.shot, board.shot.wishes
    held = wishes.get("paused") or wishes.get("stopped")
    state = "paused" if "paused" in wishes else "stopped" if "stopped" in wishes else "active"
    note = ", ".join(f"{shot.queue[name]} {name}" for name in ("queued", "running") if name in shot.queue)
    return board.in_loop(
        "queue", state, does="one job at a time, in order, none lost", note=note,
        acts=("job.retry", "job.give_up", "job.skip", "job.cancel", "dispatch.waiting"),
        since=held.at if held is not None else None,
    )  # fmt: skip


def _disk(board: _Board) -> dict[str, Any]:
    free = files.free_bytes(board.layout.root)
    wanted = config.raw_number(board.layout, "disk", "min_free_gb", 2.0) * GIGABYTE
    note = f"{free / GIGABYTE:.1f} GB free, {wanted / GIGABYTE:g} GB wanted"
    state = "enough" if free >= wanted else "LOW"
    return board.in_loop("disk", state, does="starts nothing that would not fit", note=note, acts=("disk",))


def _memory(board: _Board) -> dict[str, Any]:
    shot = board.shot
    told: dict[str, Any] = {
        "does": "a trainer that leaks saves, and a fresh process goes on",
        "acts": ("attempt.memory",),
    }
    if shot.attempt is None or shot.heartbeat is None:
        return board.in_loop("memory", "active, nothing to watch", **told)
    held, room, note = resident_bytes(shot.heartbeat.pid), room_of(shot.heartbeat.pid), ""
    if held is not None and room is not None:
        note = f"the trainer holds {giga(held)}, {room.where} has {giga(room.available_bytes)} left"
    return board.in_loop("memory", "watching", note=note, since=shot.attempt.started_at, **told)


def _cleanup(board: _Board) -> dict[str, Any]:
    keep = int(config.raw_number(board.layout, "checkpoint", "keep", 5))
    return board.in_loop(
        "cleanup", "active", does="removes surplus, never the last verified checkpoint or one in use",
        note=f"keeps {keep}", acts=("checkpoint.removed", "trash.removed"),
    )  # fmt: skip
