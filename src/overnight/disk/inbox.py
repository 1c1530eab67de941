"""Which names in the inbox are taken, and why the others are not."""

from __future__ import annotations

import os
import stat

from overnight.disk.layout import Layout

UNFINISHED = (".part", ".tmp")
TAKEN = ".jsonl"
_KINDS = {
    stat.S_IFDIR: "it is a folder: put the files themselves into the inbox",
    stat.S_IFLNK: "it is a link: put the file itself into the inbox",
    stat.S_IFIFO: "it is a FIFO, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def is_left_alone(name: str) -> bool:
    """Return whether a name is none of our business: hidden, or not finished."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED)


def why_not_taken(name: str, mode: int) -> str | None:
    """Return why a name is never taken, fit for the user; None for one that is."""
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        return kind
    if not name.lower().endswith(TAKEN):
        return "its name does not end in .jsonl: one JSON object a line is what is trained"
    return None


def has_work(layout: Layout) -> bool:
    """Return whether a file waits to be taken, or was taken and is not judged yet."""
    try:
        with os.scandir(layout.inbox) as entries:
            for entry in entries:
                if not is_left_alone(entry.name) and _is_taken(entry):
                    return True
        with os.scandir(layout.claimed) as claims:
            return any(not claim.name.startswith(".") for claim in claims)
    except OSError:
        return False


def _is_taken(entry: os.DirEntry[str]) -> bool:
    try:
        return why_not_taken(entry.name, entry.stat(follow_symlinks=False).st_mode) is None
    except OSError:
        return False
