"""Safe cleanup: the plan that the operator is shown, and the very same carried out, never while training is active.

Whether training is active is told by the kernel's lock on the model and by the open attempts, never by the age of a
file: a trainer that stands still, or whose status cannot be read, is at work.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight import removal
from overnight.database import events, overview
from overnight.disk import config, files
from overnight.disk.layout import Layout
from overnight.domain.retention import Item, TrashItem
from overnight.publishing.resting import at_rest

WHAT = "old checkpoints are removed"
FIX = (
    "wait for its end, or overnight pause, then try again; old checkpoints are removed while training anyway"
    " (checkpoint.keep)"
)

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
    with at_rest(layout, connection, what=WHAT, fix=FIX, now=now):
        return _plan(layout, connection, keep=keep)


def carry_out(layout: Layout, connection: sqlite3.Connection, agreed: Plan, *, keep: int, now: float) -> Plan:
    """Remove what was agreed and still may go; return what was really done.

    Raises BusyError while training is active, DiskError where the disk refuses: what was not removed by then is whole.
    """
    paths = {item.path for item in [*agreed.removed, *agreed.set_aside]} | {
        item.resting.path for item in agreed.removed_trash
    }
    with at_rest(layout, connection, what=WHAT, fix=FIX, now=now):
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
    recorded: list[str] = []

    def record() -> None:
        recorded.append(f"{Path(item.path).name} is removed by overnight cleanup: {item.reason}")
        events.record(
            connection, now=now, kind="checkpoint.removed", step=item.step, freed_bytes=item.bytes, message=recorded[0]
        )

    removal.remove(layout, item, record=record)
    return bool(recorded)


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
