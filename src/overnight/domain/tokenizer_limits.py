"""What a tokenizer's file may ask for: it is foreign, and its library allocates what it is told, or panics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from overnight.domain.errors import DataError

HIGHEST_ID = 9_999_999
"""Tables are allocated up to the highest number of a token; real vocabularies have up to a million."""

GROWTH_LIMIT = 100
"""How many characters of a rewritten text may come from one of the text."""

STEPS_LIMIT = 200
"""Rewritings of a text, one after the other; real tokenizers have up to ten."""

_MANY_DIGITS = re.compile(rb":\s*\d{8}")
_NUMBERED = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*(\d{8,})')
_LENGTHS = frozenset({b"max_length", b"stride", b"length", b"Fixed", b"max_input_chars_per_word"})


def excess_in_file(data: bytes) -> str | None:
    """Return what in a tokenizer.json would have far too much memory allocated, or None."""
    if _MANY_DIGITS.search(data) is None:
        return None
    found = next((match for match in _NUMBERED.finditer(data) if match[1] not in _LENGTHS), None)
    return None if found is None else f"numbers a token {found[2][:20].decode()}, {HIGHEST_ID} is the highest"


def excess_in_normalizer(state: str | bytes) -> str | None:
    """Return what a normalizer would blow a text up by, or None; ``state`` is the JSON that its library tells."""
    try:
        growth, steps = _growth(json.loads(state))
    except (ValueError, RecursionError):
        return "has a normalizer that cannot be looked through"
    if steps > STEPS_LIMIT:
        return f"rewrites a text {steps} times"
    return None if growth <= GROWTH_LIMIT else f"makes {growth:.3g} characters of one"


def _growth(node: Any) -> tuple[float, int]:
    """Return by how much a normalizer lengthens a text at worst, and in how many steps."""
    if not isinstance(node, dict):
        return 1.0, 1
    total, steps = 1.0, 1
    for part in node.get("normalizers") or ():
        factor, more = _growth(part)
        total, steps = min(total * factor, 1e300), steps + more
    if node.get("type") == "Replace":
        content = len(str(node.get("content", "")))
        pattern = node.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        total *= max(1.0, content / len(text)) if text else 1.0 + content
    return total, steps


@contextmanager
def panics_told() -> Iterator[None]:
    """Make a DataError of a panic in the tokenizer's library, which is no Exception.

    It panics, for one, where a pattern backtracks without end.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(
            "The tokenizer gives up on a text",
            found=" ".join(str(error).split())[:200],
            expected="a tokenizer that reads any text",
            fix="look at the patterns in the base model's tokenizer.json, or use another base model",
            code="tokenizer_gave_up",
        ) from error
