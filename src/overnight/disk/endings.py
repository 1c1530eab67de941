"""What the loop notes in an attempt's folder for its own later self: the ground it began on, and how it ended.

::

    ATTEMPT/ground.json   daemon -> daemon: what the kernel counted when the trainer was first seen, what it grew to
    ATTEMPT/ending.json   daemon -> daemon: how it ended; written before the database, a wait status is given once
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.domain.attempt import Phase
from overnight.domain.errors import DiskError
from overnight.domain.facts import Facts

SCHEMA = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What an attempt began on, and what it was seen to need."""

    pid: int | None
    group: str | None  # folder of its memory cgroup
    oom_kills: int | None  # counted there so far
    machine_oom_kills: int | None
    peak_bytes: int | None
    limits: dict[str, int]
    boot_id: str
    noted_at: float  # unix seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt ended."""

    exit_code: int | None
    signal: int | None
    at: float  # unix seconds: when it ended, as far as that is known
    facts: Facts


def write_ground(folder: Path, ground: Ground) -> None:
    """Keep the ground; a disk that refuses costs a verdict some certainty, and nothing else."""
    with contextlib.suppress(DiskError, OSError):
        files.write_json_atomically(folder / "ground.json", {"schema": SCHEMA, **dataclasses.asdict(ground)})


def read_ground(folder: Path) -> Ground | None:
    """Return the ground, or None where nothing of use is noted."""
    value = _read(folder / "ground.json")
    names = {field.name for field in dataclasses.fields(Ground)}
    try:
        return Ground(**{name: value[name] for name in names}) if value is not None else None
    except KeyError:
        return None


def write_ended(folder: Path, ended: Ended) -> None:
    """Keep how an attempt ended; as above."""
    with contextlib.suppress(DiskError, OSError):
        files.write_json_atomically(folder / "ending.json", {"schema": SCHEMA, **dataclasses.asdict(ended)})


def read_ended(folder: Path) -> Ended | None:
    """Return how an attempt ended, or None where nothing of use is noted."""
    value = _read(folder / "ending.json")
    try:
        return Ended(
            exit_code=value["exit_code"], signal=value["signal"], at=float(value["at"]), facts=_facts(value["facts"])
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _facts(value: dict[str, Any]) -> Facts:
    names = {field.name for field in dataclasses.fields(Facts)}
    known = {name: item for name, item in value.items() if name in names}
    known["kernel_log"] = tuple(known.get("kernel_log", ()))
    known["phase"] = Phase(known["phase"]) if known.get("phase") else None
    return Facts(**known)


def _read(path: Path) -> Any:
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == SCHEMA else None
