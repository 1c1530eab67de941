"""A file of the user's that cannot be read, in words: one table for every verb that takes a file."""

from __future__ import annotations

import errno

from overnight.domain.errors import UsageError
from overnight.domain.printable import shown

_WORDS = {
    errno.ENOENT: ("no such file", "check the name"),
    errno.ENOTDIR: ("no such file", "check the name"),
    errno.ENAMETOOLONG: ("a name that is too long", "check the name"),
    errno.EISDIR: ("a folder", "name one file in it"),
    errno.EINVAL: ("no regular file (a FIFO, a socket or a device)", "write what it gives into a file first"),
    errno.EACCES: ("no right to read it", "chmod u+r it, or run as its owner"),
    errno.ELOOP: ("a loop of links", "name the file itself"),
}


def unreadable(
    source: str, error: OSError | ValueError, *, expected: str, fixes: dict[int, str] | None = None
) -> UsageError:
    """Return the user's words; ``fixes`` says, by errno, what a verb knows better."""
    number = error.errno if isinstance(error, OSError) else None
    found, fix = _WORDS.get(number or 0, (None, "check the file and its rights"))
    return UsageError(
        f"{shown(source)} cannot be read",
        found=found or (error.strerror if isinstance(error, OSError) else str(error)),
        expected=expected,
        fix=(fixes or {}).get(number or 0, fix),
        code=errno.errorcode.get(number, "unreadable") if number else "unreadable",
    )
