"""Text that comes from files and people, made safe for terminals and logs."""

from __future__ import annotations

import unicodedata

_DANGEROUS = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def shown(text: str, *, keep: str = "") -> str:
    """Return a text whose control characters, direction marks and stray surrogates are escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _DANGEROUS else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
