"""A copy from the second place is brought back: verified there, verified here, then it gets its name.

A version comes back into ``models/``, and is put in use by a rollback; a checkpoint comes back into ``current_model/``,
and is where the model stands where it is the newest one. What is whole is never replaced. Killed anywhere there is the
old or the new, and the same command completes it.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from overnight import removal, starting
from overnight.database import events
from overnight.database.connection import Connection
from overnight.disk import backups, checkpoints, config, files, run_identity, sealed, versions
from overnight.disk.layout import Layout
from overnight.domain.backup import Copy, Kind, kind_of
from overnight.domain.checkpoint import CheckpointReport, Verdict, step_of
from overnight.domain.errors import DiskError, FailedError, UsageError
from overnight.domain.lock_values import Locked
from overnight.domain.locked import locked_keys_changed, refused
from overnight.domain.printable import shown
from overnight.publishing.border import at_border

WHAT = "a copy is brought back"
FIX = "wait for its end, or overnight pause, then try again"
_STAGING = re.compile(r"\.checkpoint-[0-9]+\.[0-9a-f]{8}\.staging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was brought back."""

    name: str
    path: str
    bytes: int
    is_changed: bool  # False: it was there already, whole
    set_aside: list[str]  # where what stood in its way, or was newer, lies now
    message: str


def place_of(layout: Layout, told: Path | None) -> Path:
    """Return the second place: the one that is named, else that of the settings. Raises UsageError, ConfigError."""
    if told is not None:
        return Path(os.path.abspath(told))
    path = config.read(layout).backup.path
    if path is None:
        raise UsageError(
            "No second place is known",
            found="backup.path is null",
            expected="a folder that holds copies",
            fix="--from PATH, or overnight config set backup.path PATH",
            code="no_place",
        )
    return Path(path)


def copies(place: Path, *, verify_content: bool) -> list[Copy]:
    """Return what lies in a second place. Raises DiskError where it is not there or cannot be read."""
    try:
        if backups.read_marker(place) is None:
            raise _no_place(place)
        return backups.listing(place, verify_content=verify_content)
    except OSError as error:
        raise files.disk_error(error, place) from error


def restore(
    layout: Layout,
    connection: Connection,
    name: str,
    *,
    source: Path | None = None,
    set_newer_aside: bool = False,
    now: float,
) -> Restored:
    """Bring one copy back.

    Raises UsageError where there is none of that name, FailedError where it is damaged or does not belong here,
    BusyError while something trains, DiskError: nothing is changed then.
    """
    kind = kind_of(name)
    if kind is None:
        raise UsageError(
            f"'{shown(name)[:100]}' names neither a version nor a checkpoint",
            found=shown(name)[:100],
            expected="an exact name, such as v001 or checkpoint-400",
            fix="overnight versions backups lists the copies",
            code="unknown_copy",
        )
    place = place_of(layout, source)
    with at_border(layout, connection, what=WHAT, fix=FIX, now=now):
        _remove_staging(layout, layout.model)
        copy = _require_whole(place, name)
        _require_ours(layout, place, copy)
        original = backups.source_of(layout, name)
        is_here = _is_whole(original, kind)
        if is_here:
            _require_same(original, copy)
        newer = _newer(layout, name) if kind is Kind.CHECKPOINT else []
        if is_here and not (newer and set_newer_aside):
            return _already(original, copy, newer)
        if newer and not set_newer_aside:
            raise _not_newest(name, newer)
        if kind is Kind.CHECKPOINT:
            _require_fit(layout, Path(copy.path))
        aside = _bring(layout, Path(copy.path), original, kind) if not is_here else []
        aside += [str(checkpoints.set_aside(folder, layout.trash)) for folder in newer]
        message = (
            f"{name} is back from {copy.path}, every byte of it verified ({copy.bytes / 1e6:.1f} MB)"
            if not is_here
            else f"{name} is where the model stands again, every byte as in its copy"
        )
        message += f"; set aside into the trash: {', '.join(Path(one).name for one in aside)}" if aside else ""
        events.record(connection, now=now, kind="backup.restored", message=message, name=name, path=copy.path)
    return Restored(name=name, path=str(original), bytes=copy.bytes, is_changed=True, set_aside=aside, message=message)


def _require_whole(place: Path, name: str) -> Copy:
    """Return a copy that was read to the last byte."""
    try:
        if backups.read_marker(place) is None:
            raise _no_place(place)
        known = backups.names_in(place)
        if name not in known:
            raise UsageError(
                f"There is no copy of {name}",
                found=f"{', '.join(known[-10:]) or 'no copy'} in {place}",
                expected="an exact name",
                fix="overnight versions backups lists the copies",
                code="unknown_copy",
            )
        copy = backups.judge(backups.folder_of(place, name), verify_content=True)
    except OSError as error:
        raise files.disk_error(error, place) from error
    if not copy.is_verified:
        raise FailedError(
            f"The copy of {name} is damaged and is not brought back; nothing was changed",
            found=copy.reason,
            expected="every file as it was copied",
            fix="overnight versions backups --verify tells which copies are whole",
            code="damaged",
        )
    return copy


def _require_ours(layout: Layout, place: Path, copy: Copy) -> None:
    """Refuse a copy of another model: its history is not this one's."""
    ours = run_identity.read(layout.model)
    theirs = str((backups.read_marker(place) or {}).get("run", ""))
    if copy.kind is Kind.CHECKPOINT:
        theirs = checkpoints.read_manifest(Path(copy.path)).run or theirs
    if ours and theirs and ours != theirs:
        raise FailedError(
            f"The copy of {copy.name} belongs to another model's history; nothing was changed",
            found=f"run {theirs[:8]}",
            expected=f"run {ours[:8]}",
            fix="bring it back into a new workspace: overnight init, then overnight versions restore --from PATH",
            code="foreign",
        )


def _is_whole(original: Path, kind: Kind) -> bool:
    if not os.path.lexists(original):
        return False
    return backups.judge(original, verify_content=True).is_verified


def _require_same(original: Path, copy: Copy) -> None:
    """Refuse where something whole of that name is here that is not what was copied."""
    if not backups.is_same(original, Path(copy.path)):
        raise FailedError(
            f"Another {copy.name} is here, and it is whole; nothing was changed",
            found=str(original),
            expected=f"what {copy.path} is a copy of, or nothing",
            fix="what is whole is never replaced; where you want the copy, move the one that is here away first",
            code="exists",
        )


def _already(original: Path, copy: Copy, newer: list[Path]) -> Restored:
    message = f"{copy.name} is here already, every byte as in its copy; nothing was changed"
    if newer:
        message += f"; the model stands at {newer[-1].name}: --set-newer-aside goes back"
    return Restored(
        name=copy.name, path=str(original), bytes=copy.bytes, is_changed=False, set_aside=[], message=message
    )


def _newer(layout: Layout, name: str) -> list[Path]:
    """Return the whole checkpoints of a higher step, the lowest first: the last one set aside is where it stood."""
    step = step_of(name) or 0
    found = checkpoints.scan(layout.model, verify_content=False)
    return [Path(one.path) for one in reversed(found) if one.step > step and one.verdict is Verdict.VERIFIED]


def _not_newest(name: str, newer: list[Path]) -> FailedError:
    return FailedError(
        f"{name} is older than where the model stands; nothing was changed",
        found=f"newer and whole: {', '.join(folder.name for folder in newer[-5:])}",
        expected="nothing newer, or the wish to go back",
        fix="--set-newer-aside moves the newer ones into the trash, where they lie for disk.trash_days; a version comes"
        " back with overnight versions rollback",
        code="newer",
    )


def _require_fit(layout: Layout, copy: Path) -> None:
    """Refuse a checkpoint that the settings or the base model of this workspace do not belong to."""
    manifest = checkpoints.read_manifest(copy)
    settings = config.read(layout)
    changed = locked_keys_changed(settings, Locked(values=dict(manifest.locked), source=copy.name, step=manifest.step))
    if changed:
        raise refused(changed)
    report = CheckpointReport(
        step=manifest.step, path=str(copy), verdict=Verdict.VERIFIED, reason="", bytes=0, manifest=manifest
    )
    problems = starting.base_problems_of(layout, report, base_model=settings.base_model)
    if problems:
        raise refused(problems)


def _bring(layout: Layout, copy: Path, original: Path, kind: Kind) -> list[str]:
    """Put a copy under its name; return where a damaged one that stood there lies now."""
    staging = original.with_name(f".{original.name}.{files.token()}.staging")  # on the disk where it belongs
    try:
        files.make_directory(staging)
        whole = Path(backups.copy_aside(copy, staging).path)
        if kind is Kind.VERSION:
            whole = _seal(layout, whole)
        aside = [str(removal.set_version_aside(layout, original))] if os.path.lexists(original) else []
        files.rename_durably(whole, original)
    except OSError as error:
        raise files.disk_error(error, original) from error
    finally:
        _remove_staging(layout, original.parent)
    return aside


def _remove_staging(layout: Layout, place: Path) -> None:
    """Remove what this restore, or one that was killed, has put together. Under the lock."""
    with contextlib.suppress(OSError):
        versions.remove_staging(layout)
        for name in os.listdir(place):
            if _STAGING.fullmatch(name):
                files.remove_tree(place / name, inside=place)


def _seal(layout: Layout, whole: Path) -> Path:
    """Make a version read-only beside its place: a sealed folder moves only inside its parent."""
    hidden = layout.versions / f".{whole.name}.{files.token()}.staging"
    files.rename_durably(whole, hidden)
    sealed.seal_tree(hidden)
    sealed.sync_folders(hidden)
    return hidden


def _no_place(place: Path) -> DiskError:
    return DiskError(
        f"{place} holds no copies",
        found=f"no {backups.MARKER} there: its disk is not mounted, or it is another folder",
        expected="the folder that backup.path named when the copies were made",
        fix="mount the disk, or give the folder with --from PATH",
        code="ENOENT",
    )
