"""Where things stand in a line of JSON: columns of keys, second keys, literals, brackets.

Only asked for lines that are already refused, so it may be slow; it never recurses, so no nesting is too deep for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)

# a whole pair, or (in the group) a half of one, or any other escape
_ESCAPE = re.compile(
    r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.",
)

Path = tuple[str | int, ...]


def depth(value: object, *, limit: int) -> int:
    """Return how deep a decoded value is nested, counting no further than just above the limit."""
    level, layer = 0, [value]
    while layer and level <= limit:
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(child for child in item.values() if isinstance(child, dict | list))
            elif isinstance(item, list):
                inner.extend(child for child in item if isinstance(child, dict | list))
        level += 1
        layer = inner
    return level


def _keys(text: str) -> Iterator[tuple[Path, int]]:
    """Yield each key and each list item's path with its column, in order of the text (which is valid JSON)."""
    path: list[str | int] = []
    kinds: list[str] = []
    is_key = False
    for token in _TOKEN.finditer(text):
        word = token.group()
        if kinds and kinds[-1] == "[" and word != "]" and not is_key and word not in ",:}":
            yield tuple(path), token.start() + 1
        if word in "{[":
            kinds.append(word)
            path.append(0 if word == "[" else "")
            is_key = word == "{"
        elif word in "}]":
            kinds.pop()
            path.pop()
            is_key = False
        elif word == ",":
            if kinds[-1] == "[":
                path[-1] = int(path[-1]) + 1
            is_key = kinds[-1] == "{"
        elif is_key and word[0] == '"':
            path[-1] = json.loads(word)
            yield tuple(path), token.start() + 1
            is_key = False


def column_of(text: str, path: Path) -> int:
    """Return the column of a key, or of the nearest thing around it; 1 where the path is empty."""
    best, best_length = 1, 0
    for found, column in _keys(text):
        if found == path:
            return column
        if len(found) > best_length and found == path[: len(found)]:
            best, best_length = column, len(found)
    return best


def first_duplicate(text: str) -> tuple[str, int]:
    """Return the first key that stands twice in one object, with the column of its second place."""
    seen: set[Path] = set()
    for path, column in _keys(text):
        if isinstance(path[-1], str) and path in seen:
            return path[-1], column
        seen.add(path)
    return "", 1


def column_of_literal(text: str, literal: str) -> int:
    """Return the column of a number or word that stands outside of strings."""
    return next((token.start() + 1 for token in _TOKEN.finditer(text) if token.group() == literal), 1)


def column_at_depth(text: str, level: int) -> int:
    """Return the column of the bracket that opens the given level."""
    open_brackets = 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in "{[":
            open_brackets += 1
            if open_brackets == level:
                return token.start() + 1
        elif word in "}]":
            open_brackets -= 1
    return 1


def column_of_lone_surrogate(text: str) -> int:
    """Return the column of the first escape that is half of a pair."""
    for token in _TOKEN.finditer(text):
        for escape in _ESCAPE.finditer(token.group()) if token.group()[0] == '"' else ():
            if escape.group(1):
                return token.start() + escape.start() + 1
    return 1
