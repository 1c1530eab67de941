"""Safe cleanup: the plan that the operator is shown, and the very same carried out, never while training is active.

Whether training is active is told by the kernel's lock on the model and by the open attempts, never by the age of a
file: a trainer that stands still, or whose status cannot be read, is at work.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight import removal
from overnight.control.wishes import is_daemon_alive
from overnight.database import events, overview, queue
from overnight.disk import config, files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Attempt
from overnight.domain.errors import BusyError
from overnight.domain.picture import iso
from overnight.domain.retention import Item, TrashItem
from overnight.launchers.base import Exited
from overnight.launchers.choice import launcher_of

KEEP = 5
"""So many checkpoints stay where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of each checkpoint, and of what was set aside."""

    checkpoints: list[Item]
    trash: list[TrashItem]

    @property
    def removed(self) -> list[Item]:
        """The checkpoints that go."""
        return [item for item in self.checkpoints if not item.is_kept]

    @property
    def set_aside(self) -> list[Item]:
        """The damaged checkpoints that move into the trash."""
        return [item for item in self.checkpoints if item.is_set_aside]

    @property
    def removed_trash(self) -> list[TrashItem]:
        """What leaves the trash."""
        return [item for item in self.trash if not item.is_kept]

    @property
    def freed_bytes(self) -> int:
        """The bytes of all that goes."""
        return sum(item.bytes for item in self.removed) + sum(item.resting.bytes for item in self.removed_trash)

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not self.removed and not self.removed_trash and not self.set_aside

    def to_json(self) -> dict[str, Any]:
        """Return the answer of ``overnight cleanup --json``."""
        return {
            "kept": [_item_json(item) for item in self.checkpoints if item.is_kept and not item.is_set_aside],
            "set_aside": [_item_json(item) for item in self.set_aside],
            "removed": [_item_json(item) for item in self.removed],
            "trash": {
                "kept": [_trash_json(item) for item in self.trash if item.is_kept],
                "removed": [_trash_json(item) for item in self.removed_trash],
            },
            "freed_bytes": self.freed_bytes,
        }


def plan(layout: Layout, connection: sqlite3.Connection, *, keep: int, now: float) -> Plan:
    """Say what would go; nothing is touched. Raises UsageError for a bad ``keep``, BusyError while training."""
    with _at_rest(layout, connection, now=now):
        return _plan(layout, connection, keep=keep)


def carry_out(layout: Layout, connection: sqlite3.Connection, agreed: Plan, *, keep: int, now: float) -> Plan:
    """Remove what was agreed and still may go; return what was really done.

    Raises BusyError while training is active, DiskError where the disk refuses: what was not removed by then is whole.
    """
    paths = {item.path for item in [*agreed.removed, *agreed.set_aside]} | {
        item.resting.path for item in agreed.removed_trash
    }
    with _at_rest(layout, connection, now=now):
        fresh = _plan(layout, connection, keep=keep)
        try:
            checkpoints = [
                item for item in fresh.checkpoints
                if (item.is_kept and not item.is_set_aside)
                or (item.path in paths and _carry_out(layout, connection, item, now=now))
            ]  # fmt: skip
            trash = [
                item for item in fresh.trash
                if item.is_kept or (item.resting.path in paths and removal.remove_resting(layout, item))
            ]  # fmt: skip
        except OSError as error:
            raise files.disk_error(error, error.filename or layout.model) from error
    return Plan(checkpoints=checkpoints, trash=trash)


def _plan(layout: Layout, connection: sqlite3.Connection, *, keep: int) -> Plan:
    return Plan(
        checkpoints=removal.plan(layout, keep=keep, held=overview.held_steps(connection)),
        trash=removal.plan_trash(
            layout,
            trash_days=config.raw_number(layout, "disk", "trash_days", 14.0),
            min_free_gb=config.raw_number(layout, "disk", "min_free_gb", 2.0),
        ),
    )


def _carry_out(layout: Layout, connection: sqlite3.Connection, item: Item, *, now: float) -> bool:
    if item.is_set_aside:
        resting = removal.set_aside(layout, item)
        if resting is None:
            return False
        events.record(
            connection, now=now, kind="checkpoint.set_aside", level="warning", step=item.step, trash=str(resting),
            message=f"{Path(item.path).name} is set aside by overnight cleanup, it is {item.reason}",
        )  # fmt: skip
        return True
    if not removal.remove(layout, item):
        return False
    events.record(
        connection, now=now, kind="checkpoint.removed", step=item.step, freed_bytes=item.bytes,
        message=f"{Path(item.path).name} is removed by overnight cleanup: {item.reason}",
    )  # fmt: skip
    return True


@contextmanager
def _at_rest(layout: Layout, connection: sqlite3.Connection, *, now: float) -> Iterator[None]:
    """Hold off every new attempt; refuse where one is at work. Raises BusyError."""
    _refuse_while_active(layout, connection)  # before the lock: an attempt that is just being opened is not disturbed
    lock = files.Lock(layout.checkpoints_lock)
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    try:
        files.require_lock(lock, holder=who, what="Checkpoints are being removed, or an attempt is being started")
    except BusyError:
        _refuse_while_active(layout, connection)  # the better words, where an attempt was opened just now
        raise
    try:
        _refuse_while_active(layout, connection)
        yield
    finally:
        lock.release()


def _refuse_while_active(layout: Layout, connection: sqlite3.Connection) -> None:
    attempts = queue.open_attempts(connection)
    holder = files.lock_holder(layout.model_lock)
    if holder is not None:
        name = holder.get("attempt") or (attempts[0].id if attempts else "of an unknown job")
        since = holder.get("since")
        when = f" since {iso(since)}" if isinstance(since, int | float) else ""
        raise _active(f"attempt {name} (pid {holder.get('pid', 'unknown')}) holds the lock on the model{when}")
    for attempt in attempts:
        if is_daemon_alive(layout) or _is_alive(attempt):
            raise _active(f"attempt {attempt.id} of job {attempt.job} is {attempt.state.value}: {attempt.reason}")


def _is_alive(attempt: Attempt) -> bool:
    """Return whether an attempt that no daemon looks after has a living process."""
    return attempt.handle is not None and not isinstance(launcher_of("local").poll(attempt.handle), Exited)


def _active(found: str) -> BusyError:
    return BusyError(
        "ABORT: training is active",
        found=found,
        expected="no trainer at work on this model",
        fix="wait for its end, or overnight pause, then try again; old checkpoints are removed while training anyway"
        " (checkpoint.keep)",
        code="active",
    )


def _item_json(item: Item) -> dict[str, Any]:
    return {
        "step": item.step if item.step >= 0 else None,
        "path": item.path,
        "bytes": item.bytes,
        "state": item.verdict.value,
        "reason": item.reason,
    }


def _trash_json(item: TrashItem) -> dict[str, Any]:
    return {
        "path": item.resting.path,
        "bytes": item.resting.bytes,
        "age_s": item.resting.age_s,
        "reason": item.reason,
    }
