"""What is remembered of the second place: which folder it was, which copies were read back whole, what is copied now.

A copy counts as verified while each of its files looks as it did when its content was read, for some days: then it is
read again, because a disk may change bytes and say nothing. The memory may be lost at any time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from overnight.disk import backups, files
from overnight.disk.layout import Layout
from overnight.domain.backup import Copy
from overnight.domain.checkpoint import step_of

SCHEMA = 1
REREAD_S = 7 * 86_400.0
RETRY_S = 6 * 3600.0
"""So often what did not copy whole is copied once more while it looks the same: mostly the original is damaged."""


@dataclass(slots=True)
class Memory:
    """What is known of the second place."""

    path: str = ""
    token: str = ""
    commit: int = 0  # id of the event of the last commit before the last copy of a checkpoint
    looked_at: float = 0.0  # unix seconds: when everything due had been copied
    copies: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> looks, read_at of verified ones
    damaged: dict[str, str] = field(default_factory=dict)  # name -> what is wrong, as it was told
    copying: str = ""
    unusable: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # name -> looks, at, found: what did not copy whole

    def is_fresh(self, name: str, looks: str, *, now: float) -> bool:
        """Return whether a copy was read back whole, looks as it did then, and that is not long ago."""
        known = self.copies.get(name, {})
        return known.get("looks") == looks and 0 <= now - float(known.get("read_at", 0.0)) < REREAD_S

    def why_unusable(self, name: str, looks: str, *, now: float) -> str:
        """Return what was found wrong with an original that looks as it did then, not long ago; "" where nothing."""
        known = self.unusable.get(name, {})
        is_known = known.get("looks") == looks and 0 <= now - float(known.get("at", 0.0)) < RETRY_S
        return str(known.get("found")) if is_known else ""


def read(layout: Layout, path: str) -> Memory:
    """Return what is known of a place; nothing where it is another one, or where the memory is lost."""
    try:
        value = files.read_json(layout.backup_memory)
        if value.pop("schema") != SCHEMA or value.get("path") != path:
            return Memory(path=path)
        return Memory(**value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Memory(path=path)


def write(layout: Layout, memory: Memory) -> None:
    """Keep it. Raises DiskError."""
    files.write_json_durably(layout.backup_memory, {"schema": SCHEMA, **asdict(memory)})


def being_copied(layout: Layout) -> dict[int, str]:
    """Return the step of the checkpoint that is copied right now, with the reason why it has to stay."""
    try:
        name = str(files.read_json(layout.backup_memory).get("copying", ""))
    except (OSError, ValueError, AttributeError):
        return {}
    step = step_of(name)
    if step is None or files.lock_holder(layout.backup_lock) is None:
        return {}
    return {step: "it is being copied to backup.path"}


def judge(memory: Memory, place: Path, *, now: float) -> dict[str, Copy]:
    """Judge every copy by its content, read only where it was touched or not read for long; remember the verdicts.

    Errors of the disk pass as OSError.
    """
    found: dict[str, Copy] = {}
    for name in backups.names_in(place):
        folder = backups.folder_of(place, name)
        looks = backups.looks_of(folder)
        copy = backups.judge(folder, verify_content=not memory.is_fresh(name, looks, now=now))
        if copy.is_verified:
            note(memory, copy, looks=looks, now=now)
        elif memory.is_fresh(name, looks, now=now):
            copy = _trusted(copy)
        else:
            memory.copies.pop(name, None)
        found[name] = copy
    for gone in set(memory.copies) - set(found):
        del memory.copies[gone]
    return found


def remembered(memory: Memory, copy: Copy, *, now: float) -> Copy:
    """Return what counts of a copy that was judged by its looks: verified where it was read and looks as it did."""
    is_fresh = memory.is_fresh(copy.name, backups.looks_of(Path(copy.path)), now=now)
    return _trusted(copy) if is_fresh and copy.reason.startswith("complete") else copy


def note(memory: Memory, copy: Copy, *, looks: str, now: float) -> None:
    """Remember that a copy was read back whole; ``looks`` are those from before it was read."""
    memory.copies[copy.name] = {"looks": looks, "read_at": now}


def _trusted(copy: Copy) -> Copy:
    from dataclasses import replace

    return replace(copy, is_verified=True, reason="every file is as copied; untouched since it was read back")
