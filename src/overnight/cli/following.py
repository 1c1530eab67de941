"""Reading the end of a log, and going on as it grows, also when it is rotated."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from overnight.disk import files

POLL_S = 0.2
BLOCK_BYTES = 65536
LONGEST_LINE_BYTES = 1 << 20


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a file, however long it is; none where it is not there."""
    if count <= 0:
        return []
    try:
        with files.open_regular(path, follow_links=True) as file:
            return _last(file, count)
    except OSError:
        return []


def _last(file: IO[bytes], count: int) -> list[str]:
    at = file.seek(0, os.SEEK_END)
    data = b""
    while at > 0 and data.count(b"\n") <= count and len(data) < count * LONGEST_LINE_BYTES:
        step = min(BLOCK_BYTES, at)
        at = file.seek(at - step)
        data = file.read(step) + data
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.decode("utf-8", "replace") for line in lines[-count:]]


def follow_file(path: Path) -> Iterator[str]:
    """Yield lines that are appended from now on; a file that takes its place is read from its beginning."""
    file = _open(path, at_end=True)
    pending = b""
    while True:
        chunk = file.read(BLOCK_BYTES) if file is not None else b""
        if chunk:
            pending += chunk
            *lines, pending = pending.split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
            continue
        if file is None or _was_replaced(file, path):
            if file is not None:
                file.close()
            file = _open(path, at_end=False)
            if file is not None:
                continue
        time.sleep(POLL_S)


def _open(path: Path, *, at_end: bool) -> IO[bytes] | None:
    try:
        file = files.open_regular(path, follow_links=True)  # closed when it is replaced, or with the process
    except OSError:
        return None
    if at_end:
        file.seek(0, os.SEEK_END)
    return file


def _was_replaced(file: IO[bytes], path: Path) -> bool:
    try:
        now, ours = os.stat(path), os.fstat(file.fileno())
    except OSError:
        return False
    return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or now.st_size < file.tell()
