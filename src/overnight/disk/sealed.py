"""Folders whose files are recorded by size and hash: what is changed, missing or added is found."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from overnight.disk import files
from overnight.disk.manifest import MANIFEST
from overnight.domain.checkpoint import FileRecord, Verdict

LOADABLE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".json", ".jinja", ".model", ".py")
"""Endings of files that libraries look for by name: none may stand in a sealed folder that was not recorded with it."""


def regular_files(folder: Path, *, with_manifest: bool = False) -> Iterator[str]:
    """Yield the files below a folder as relative POSIX paths; links and special files are passed over."""
    for parent, folders, names in os.walk(folder, onerror=_not_silently):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if (relative != MANIFEST or with_manifest) and stat.S_ISREG(os.lstat(path).st_mode):
                yield relative


def _not_silently(error: OSError) -> None:
    """Raise what keeps a folder from being listed: one that only seems empty would be committed, or found whole, empty.

    What this user may not look into is nothing of ours.
    """
    if not isinstance(error, PermissionError):
        raise error


def record(path: Path) -> FileRecord:
    """Return a file's size and hash; its bytes are synced."""
    found = FileRecord(bytes=os.lstat(path).st_size, blake3=files.blake3_of(path))
    files.sync_file(path)
    return found


def sync_folders(folder: Path) -> None:
    """Make every name below a folder survive a power cut."""
    for parent, _, _ in os.walk(folder, topdown=False, onerror=_not_silently):
        files.sync_directory(Path(parent))


def seal_tree(path: Path) -> None:
    """Take the right to write from everything below a folder, and from the folder itself; links are passed over."""
    _set_modes(path, folders=0o555, others=0o444)


def unseal_folders(path: Path) -> None:
    """Give back the right to change what lies in a folder and in those below it, so that it can be moved or removed."""
    _set_modes(path, folders=0o755, others=None)


def _set_modes(path: Path, *, folders: int, others: int | None) -> None:
    os.chmod(path, folders | 0o200)  # one may walk through it and change it until the end
    for parent, inner, names in os.walk(path):
        for name in inner:
            if not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), folders)
        for name in names:
            if others is not None and not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), others)
    os.chmod(path, folders)


def first_problem(
    folder: Path, records: Mapping[str, FileRecord], *, verify_content: bool
) -> tuple[Verdict, str] | None:
    """Return what is wrong with the recorded files, or what was added that a library would load; None where nothing."""
    for name, one in sorted(records.items()):
        problem = _problem(folder / name, one, verify_content=verify_content)
        if problem is not None:
            return problem[0], f"{name} {problem[1]}"
    intruder = _intruder(folder, records)
    return (Verdict.CORRUPT, f"{intruder} was added: libraries may load it") if intruder is not None else None


def _problem(path: Path, one: FileRecord, *, verify_content: bool) -> tuple[Verdict, str] | None:
    """Return what is wrong with one file, or None."""
    try:
        facts = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Verdict.INCOMPLETE, "is missing"
    if not stat.S_ISREG(facts.st_mode):
        return Verdict.CORRUPT, "is no regular file"
    if facts.st_size != one.bytes:
        return Verdict.CORRUPT, f"has {facts.st_size} bytes, {one.bytes} were committed"
    if verify_content and files.blake3_of(path) != one.blake3:
        return Verdict.CORRUPT, "differs from what was committed (its hash does not match)"
    return None


def _intruder(folder: Path, records: Mapping[str, FileRecord]) -> str | None:
    """Return something in the folder that was not recorded and that a library would load by its name."""
    for parent, folders, names in os.walk(folder, onerror=_not_silently):
        for name in sorted([*names, *(one for one in folders if Path(parent, one).is_symlink())]):
            relative = Path(parent, name).relative_to(folder).as_posix()
            if name.endswith(LOADABLE) and relative != MANIFEST and relative not in records:
                return relative
    return None
