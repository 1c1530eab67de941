"""Names of data files as they are shown and stored: safe to print, and short enough for every suffix we add."""

from __future__ import annotations

import hashlib

from overnight.domain.printable import shown

NAME_LIMIT = 200
"""Bytes. File systems take 255; the rest is for a job's number and ``.report.json``."""


def safe_name(name: str) -> str:
    """Return a file's name with everything escaped that a terminal or a log must not see, cut where it is too long.

    ``name`` is as the os module gives it. Different long names stay different.
    """
    text = shown(name)
    if len(text.encode()) <= NAME_LIMIT:
        return text
    mark = "~" + hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    _, ending = _parts(text)
    ending = ending if len(ending.encode()) <= 20 else ""
    room = NAME_LIMIT - len(mark) - len(ending.encode())
    return text.encode()[:room].decode("utf-8", "ignore") + mark + ending


def numbered_name(name: str, *words: object) -> str:
    """Return ``stem.word.suffix``: ``a.jsonl`` with 7 is ``a.7.jsonl``."""
    stem, ending = _parts(name)
    return ".".join([stem, *map(str, words)]) + ending


def _parts(name: str) -> tuple[str, str]:
    """Split ``a.b.jsonl`` into ``a.b`` and ``.jsonl``; a leading dot begins no ending."""
    place = name.rfind(".")
    return (name[:place], name[place:]) if 0 < place < len(name) - 1 else (name, "")


def view_name(name: str, job: int, *, is_first: bool) -> str:
    """Return the name of a job's file in the folders for people: its own, or numbered where it was used before."""
    return name if is_first else numbered_name(name, job)
