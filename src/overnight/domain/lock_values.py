"""What is locked now, and whose it is; a file of its own, because who only looks does not load the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """The locked values, and whose they are."""

    values: dict[str, Any]  # by dotted key; empty where nothing is locked, or where nobody can tell
    source: str | None  # "checkpoint-48", ".config_lock.json"; None where nothing is locked
    step: int | None  # global step of that checkpoint
    readable: bool = True  # False: checkpoints are there, and none can tell what belongs to it


NOTHING_LOCKED = Locked(values={}, source=None, step=None)
