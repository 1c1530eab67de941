"""What a chat template may spend, and what its operations cost: text, lists, loops, long numbers.

A sandbox keeps foreign code away from the machine, not from its time and memory. So each thing that can grow is charged
before it is made, or as soon as it is. A unit is about a character copied. What no template needs and what cannot be
measured is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

LOOP_LIMIT = 50_000
"""Turns of all loops and macros in one rendering, besides 1,000 a message."""

WORK_LIMIT = 128 << 20
"""Units that one rendering may spend, besides what long conversations honestly need."""

COMPILE_WORK = 1 << 20
"""Units for what is worked out while a template is compiled."""

LONGEST = 16 << 20
"""Units that one value may be worth, besides four times the conversation."""

SOURCE_LIMIT = 1 << 20
"""Characters of a template; real ones have some ten thousand."""

NUMBER_LIMIT = 100_000
"""The largest number that a filter or method takes as a width or count, and the bits of the longest number."""

ELEMENT, NODE = 64, 50
"""Units for each element of a list or dictionary, and for each part of a template's code that a turn may run."""

SHORT = 10_000
WIDTHS = re.compile(r"\d{5}|\*|\{[^{}]*\{")
"""In a text to format: a wide field, or one whose width comes from elsewhere."""


class TooCostlyError(Exception):
    """Raised inside a rendering that goes over a limit."""


class Work:
    """What is left to be spent."""

    def __init__(self) -> None:
        self.left, self.turns, self.longest = COMPILE_WORK, 0, COMPILE_WORK

    def begin(self, *, num_messages: int, num_characters: int) -> None:
        """Give one rendering what it may spend."""
        self.turns = LOOP_LIMIT + 1000 * num_messages
        self.longest = LONGEST + 4 * num_characters
        self.left = WORK_LIMIT + num_messages * (NODE * 1000 + num_characters) + 16 * num_characters

    def charge(self, units: int) -> None:
        """Spend. Raises TooCostlyError where it is too much."""
        self.left -= units
        if units > self.longest:
            raise TooCostlyError(f"one operation makes more than {self.longest:,} characters")
        if self.left < 0:
            raise TooCostlyError("the template does too much work")

    def weigh(self, value: Any) -> Any:
        """Spend what a value is worth, and return it."""
        if isinstance(value, str):
            size = len(value)
            if size < SHORT and size < self.left:  # nearly always
                self.left -= size
                return value
            self.charge(size if value.isascii() else 4 * size)
        elif isinstance(value, list | tuple | set | frozenset | dict):
            self._weigh_elements(value)
        elif type(value) is int:
            require_bits(value.bit_length())
        return value

    def _weigh_elements(self, value: Iterable[Any]) -> None:
        before = self.left
        waiting: list[Any] = [value]
        while waiting:  # what stands twice in a structure counts twice: so it will be written
            one = waiting.pop()
            elements = itertools.chain.from_iterable(one.items()) if isinstance(one, dict) else one
            for element in elements:
                self.charge(ELEMENT)
                if isinstance(element, list | tuple | set | frozenset | dict):
                    waiting.append(element)
                elif isinstance(element, str):
                    self.charge(len(element))
        if before - self.left > self.longest:
            raise TooCostlyError(f"one operation makes more than {self.longest:,} characters")

    def require_numbers(self, values: Iterable[Any]) -> None:
        """Refuse widths and counts that nobody means. Raises TooCostlyError."""
        for value in values:
            if isinstance(value, int) and abs(value) > NUMBER_LIMIT:
                raise TooCostlyError(f"a width or count is larger than {NUMBER_LIMIT:,}")


def require_bits(bits: int) -> None:
    """Refuse a number that is too long. Raises TooCostlyError."""
    if bits > NUMBER_LIMIT:
        raise TooCostlyError(f"a number has more than {NUMBER_LIMIT:,} bits")


def growth(name: str, value: Any, rest: list[Any]) -> int:
    """Return how many characters an operation adds to what it is given."""
    texts = [other for other in rest if isinstance(other, str)]
    width = max([0, *(other for other in rest if isinstance(other, int))])
    if name == "replace" and isinstance(value, str) and len(texts) >= 2:
        return (value.count(texts[0]) if texts[0] else len(value) + 1) * len(texts[1])
    if name == "join":
        sized, separator = (
            (rest[0], value) if isinstance(value, str) and rest and not texts else (value, "".join(texts))
        )
        return len(separator) * len(sized) if hasattr(sized, "__len__") else 0
    if name == "indent" and isinstance(value, str):
        return (value.count("\n") + 1) * max(width, sum(map(len, texts)))
    if name == "expandtabs" and isinstance(value, str):
        return value.count("\t") * width
    if name == "sum" and hasattr(value, "__len__") and any(isinstance(other, list) for other in rest):
        return ELEMENT * len(value) * len(value)
    if name == "format" and isinstance(value, str) and WIDTHS.search(value):
        raise TooCostlyError("the template formats text with a wide field")
    return width
