"""Reading the end of a log, and going on as it grows, also when it is rotated."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
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
            lines, rest = _ended(_last(file, count))
    except OSError:
        return []
    return [*lines, rest.decode("utf-8", "replace")][-count:] if rest else lines


def _last(file: IO[bytes], count: int) -> bytes:
    """Return the end of a file, from the beginning of its last complete lines; it is read on from there."""
    end = at = file.seek(0, os.SEEK_END)
    data = b""
    while at > 0 and data.count(b"\n") <= count and len(data) < count * LONGEST_LINE_BYTES:
        step = min(BLOCK_BYTES, at)
        at = file.seek(at - step)
        data = file.read(step) + data
    file.seek(end)
    *lines, rest = data[: end - at].split(b"\n")
    return b"".join(line + b"\n" for line in lines[max(0, len(lines) - count) :]) + rest


def _ended(data: bytes) -> tuple[list[str], bytes]:
    """Return the lines that are complete, and what has no end yet."""
    *lines, rest = data.split(b"\n")
    return [line.decode("utf-8", "replace") for line in lines], rest


def follow_file(path: Path, count: int = 0) -> Generator[str, None, None]:
    """Yield the last lines and all that are appended, none twice and none left out.

    A file that takes its place is read from its beginning.
    """
    file, pending = _open(path), b""
    try:
        if file is not None:
            lines, pending = _ended(_last(file, max(0, count)))
            yield from lines
        while True:
            chunk = file.read(BLOCK_BYTES) if file is not None else b""
            if chunk:
                lines, pending = _ended(pending + chunk)
                yield from lines
            elif file is None or _was_replaced(file, path):
                if file is not None:
                    file.close()
                file = _open(path)
                if file is None:
                    time.sleep(POLL_S)
            else:
                time.sleep(POLL_S)
    finally:
        if file is not None:
            file.close()


def _open(path: Path) -> IO[bytes] | None:
    try:
        return files.open_regular(path, follow_links=True)
    except OSError:
        return None


def _was_replaced(file: IO[bytes], path: Path) -> bool:
    try:
        now, ours = os.stat(path), os.fstat(file.fileno())
    except OSError:
        return False
    return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or now.st_size < file.tell()
