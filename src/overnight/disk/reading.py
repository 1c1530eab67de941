"""Reading files that others can reach: never a FIFO waited for, never a device touched, never more than is sane.

What only some callers need is imported where it is used: the watchdog reads files too, and is to stay small.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
MOST_JSON_BYTES = 256 << 20
"""A JSON file that is longer is none that we read."""


def open_regular(path: Path, *, follow_links: bool) -> BufferedReader:
    """Open a regular file for reading. Never waits for a FIFO, never touches a device.

    Raises OSError: ELOOP for a link that is not followed, EINVAL for anything that is no regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    if not stat.S_ISREG(os.stat(path, follow_symlinks=follow_links).st_mode) and not (
        not follow_links and stat.S_ISLNK(os.lstat(path).st_mode)
    ):
        raise OSError(errno.EINVAL, "not a regular file", str(path))  # opening a device may already do something
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced in between
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Tell of which file a read failed: the system's own error of a read names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Return what a file holds, never waiting for a FIFO. Raises OSError, or ValueError where it is too long."""
    data = b""
    with open_regular(path, follow_links=True) as file, _naming(path):
        while len(data) <= limit:  # a read takes the memory that it asks for: what is there, not what may be
            size = os.fstat(file.fileno()).st_size
            more = file.read(min(max(CHUNK_BYTES, size - len(data)), limit + 1 - len(data)))
            if not more:
                break
            data += more
    if len(data) > limit:
        raise ValueError(f"{path.name} is longer than {limit} bytes")
    return data


def read_json(path: Path) -> Any:
    """Return the JSON in ``path``. Raises OSError (EINVAL for what is no file), or ValueError where it is no JSON."""
    try:
        return json.loads(read_bytes(path, limit=MOST_JSON_BYTES).decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    import hashlib

    with open_regular(path, follow_links=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blake3_of(path: Path) -> str:
    """Return the BLAKE3 hash of a file, in hex."""
    from blake3 import blake3

    digest = blake3()
    with open_regular(path, follow_links=True) as file, _naming(path):
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def blake3_of_text(text: str) -> str:
    """Return the BLAKE3 hash of a text, in hex."""
    from blake3 import blake3

    return blake3(text.encode("utf-8", "surrogateescape")).hexdigest()
