"""Both ends of the attempt directory: the only place where daemon and trainer meet.

::

    ATTEMPT/spec.json        daemon -> trainer, once, before the launch
    ATTEMPT/notice.json      daemon -> trainer: a wish to stop, with the reason
    ATTEMPT/watched          daemon -> trainer: touched on each tick, "somebody looks after you"
    ATTEMPT/heartbeat.json   trainer -> daemon, replaced as it works
    ATTEMPT/metrics.jsonl    trainer -> daemon: one line a logged step or evaluation
    ATTEMPT/judgement.jsonl  trainer -> next trainer: one line a judged set, so that none is judged twice
    ATTEMPT/report.json      trainer -> daemon: its last word, durable
    ATTEMPT/trainer.log      everything the trainer prints
    ATTEMPT/output/          scratch of the trainer
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from overnight.disk import files
from overnight.domain.attempt import Heartbeat, Report, Spec
from overnight.domain.errors import DiskError
from overnight.domain.merge import KIND as MERGE
from overnight.domain.merge import MergeReport, MergeSpec, Problem

Record = TypeVar("Record", Heartbeat, Report, Spec, MergeSpec, MergeReport, Problem)

SCHEMA = 1
MOST_PROGRESS = 1_000_000_000
"""A time of the heartbeat's file below so many nanoseconds after 1970 is no time, but progress told on a full disk."""

METRICS_LINE_BYTES = 512
"""More than a line of numbers takes."""


class Wish(StrEnum):
    """What a trainer is asked to do."""

    SAVE_AND_LEAVE = "save_and_leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A wish to the trainer, with the reason."""

    wish: Wish
    reason: str


def boot_id() -> str:
    """Return the kernel's id of this boot, "" where it tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def boot_time() -> float:
    """Return seconds since boot, suspend included: comparable between processes of one boot only."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_HINTS: dict[str, dict[str, Any]] = {}
"""The types of each record's fields: looked up once, they are asked for with each heartbeat."""


def _to_record(kind: type[Record], value: Any) -> Record:
    """Read a record: unknown fields are ignored, missing ones without a default raise ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} is not a JSON object")
    if value.get("schema") != SCHEMA:
        raise ValueError(f"{kind.__name__} has schema {value.get('schema')!r}, expected {SCHEMA}")
    return _to_fields(kind, value)


def _to_fields(kind: type[Record], value: dict[str, Any]) -> Record:
    hints = _HINTS.get(kind.__name__)
    if hints is None:
        hints = _HINTS[kind.__name__] = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name not in value:
            has_default = field.default is not field.default_factory  # else both are MISSING
            if has_default and field.name != "schema":
                continue  # a trainer of an earlier version, which the loop has adopted
            raise ValueError(f"{kind.__name__} lacks '{field.name}'")
        fields[field.name] = _to_type(hints[field.name], value[field.name])
    return kind(**fields)


def _to_type(hint: Any, value: Any) -> Any:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        return None
    for member in members:
        if isinstance(member, type) and issubclass(member, StrEnum):
            return member(value)
        if member is Problem:
            return _to_fields(Problem, value)
    return value


def write_spec(folder: Path, spec: Spec | MergeSpec) -> None:
    """Write the spec durably."""
    files.write_json_durably(folder / "spec.json", dataclasses.asdict(spec))


def read_spec(folder: Path) -> Spec:
    """Return the spec. Raises OSError or ValueError."""
    return _to_record(Spec, files.read_json(folder / "spec.json"))


def read_any_spec(folder: Path) -> Spec | MergeSpec:
    """Return the spec of whatever kind it is. Raises OSError or ValueError."""
    value = files.read_json(folder / "spec.json")
    is_merge = isinstance(value, dict) and value.get("kind") == MERGE
    return _to_record(MergeSpec, value) if is_merge else _to_record(Spec, value)


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the heartbeat; never torn, not synced.

    Raises DiskError. Where the disk takes no file, the time of the last one still tells how far the work is: a full
    disk must not make a trainer look stuck.
    """
    path = folder / "heartbeat.json"
    try:
        files.write_json_atomically(path, dataclasses.asdict(heartbeat))
    except DiskError:
        with contextlib.suppress(OSError):
            os.utime(path, ns=(heartbeat.progress, heartbeat.progress))  # a full disk takes that
        raise


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """Return the newest heartbeat, or None where there is none yet or it cannot be read."""
    try:
        heartbeat = _to_record(Heartbeat, files.read_json(folder / "heartbeat.json"))
        told = os.stat(folder / "heartbeat.json").st_mtime_ns
    except (OSError, ValueError):
        return None
    return dataclasses.replace(heartbeat, progress=told) if heartbeat.progress < told < MOST_PROGRESS else heartbeat


def write_report(folder: Path, report: Report | MergeReport) -> None:
    """Write the trainer's last word durably; what it died of may quote an address with a password, or a token."""
    from overnight.domain.secrets import strike_values  # only here: who reads reports does not pay for it

    value = dataclasses.asdict(report)
    told = {name: strike_values(value[name]) for name in ("message", "traceback", "notes", "problem") if name in value}
    files.write_json_durably(folder / "report.json", value | told)


def read_report(folder: Path) -> Report | None:
    """Return the trainer's last word, or None where it left none."""
    try:
        return _to_record(Report, files.read_json(folder / "report.json"))
    except (OSError, ValueError):
        return None


def read_merge_report(folder: Path) -> MergeReport | None:
    """Return the last word of a merge, or None where it left none."""
    try:
        return _to_record(MergeReport, files.read_json(folder / "report.json"))
    except (OSError, ValueError):
        return None


def write_notice(folder: Path, notice: Notice) -> None:
    """Ask the trainer for something."""
    files.write_json_atomically(
        folder / "notice.json", {"schema": SCHEMA, "wish": notice.wish.value, "reason": notice.reason}
    )


def read_notice(folder: Path) -> Notice | None:
    """Return what the trainer is asked for, or None. Cheap where nothing is asked."""
    path = folder / "notice.json"
    if not os.path.exists(path):
        return None
    try:
        value = files.read_json(path)
        return Notice(wish=Wish(value["wish"]), reason=str(value["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Notice(wish=Wish.SAVE_AND_LEAVE, reason="asked to stop (the notice could not be read)")


def touch_watched(folder: Path) -> None:
    """Tell the trainer that somebody looks after it."""
    files.write_atomically(folder / "watched", f"{boot_time():.3f} {boot_id()}\n".encode())


def unwatched_s(folder: Path) -> float | None:
    """Return for how many seconds nobody looked after the trainer; None where nobody ever did in this boot."""
    try:
        stamp, _, boot = files.read_bytes(folder / "watched", limit=1000).decode().strip().partition(" ")
        return max(0.0, boot_time() - float(stamp)) if boot == boot_id() else None
    except (OSError, ValueError):
        return None


def append_metrics(folder: Path, *metrics: dict[str, Any]) -> None:
    """Append lines of numbers in one write: step, loss, learning_rate, ..."""
    import json

    files.append_line(folder / "metrics.jsonl", "\n".join(json.dumps(line) for line in metrics))


def read_metrics(folder: Path, *, limit: int) -> list[dict[str, Any]]:
    """Return the last lines of numbers, oldest first; a torn line is passed over."""
    try:
        with files.open_regular(folder / "metrics.jsonl", follow_links=True) as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - limit * METRICS_LINE_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return _objects(lines[1 if start else 0 :])[-limit:]


def append_judged(folder: Path, found: dict[str, object]) -> None:
    """Note what was found of one set."""
    import json

    files.append_line(folder / "judgement.jsonl", json.dumps(found))


def read_judged(folder: Path) -> list[dict[str, object]]:
    """Return what an attempt has judged; a torn line is passed over."""
    try:
        return list(_objects((folder / "judgement.jsonl").read_bytes().split(b"\n")))
    except OSError:
        return []


def _objects(lines: list[bytes]) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
