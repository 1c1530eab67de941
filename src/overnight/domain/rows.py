"""A line of a data file: judged, and brought to one of three forms.

::

    messages [{role, content}]                         -> Chat
    conversations [{from, value}]     (ShareGPT)       -> Chat
    prompt + completion, as messages                   -> Chat, only the completion is learnt
    prompt + chosen + rejected        (preference)     -> as prompt + completion, where chosen is the completion
    instruction (+ input) + output                     -> Chat with one question and one answer
    prompt + completion, as strings                    -> Completion
    text                                               -> Text

Supervised fine-tuning learns the chosen answer of a preference row; the rejected one is only checked for its shape.
Keys that no format knows (id, source, ...) are left alone; keys that would change what is said (tool calls, images,
reasoning) are refused, since they could not be trained.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from overnight.domain import json_places, row_formats
from overnight.domain.row_formats import Refused, shown_piece
from overnight.domain.row_shapes import (
    MAX_DEPTH,
    MAX_DIGITS,
    Chat,
    Completion,
    Message,
    Row,
    RowCode,
    RowFormat,
    RowProblem,
    Text,
    problem,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "Chat",
    "Completion",
    "Message",
    "Row",
    "RowCode",
    "RowFormat",
    "RowProblem",
    "Text",
    "parse_line",
    "parse_text",
    "problem",
    "prompt_key",
    "to_row",
]


class _BadNumber(Exception):
    def __init__(self, code: RowCode, literal: str) -> None:
        super().__init__(literal)
        self.code = code
        self.literal = literal


class _DuplicateKey(Exception):
    pass


def parse_line(line: bytes) -> Row | RowProblem:
    """Judge one line (without its line break) as the file holds it."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        return problem(RowCode.NOT_UTF8, f"byte 0x{line[error.start]:02x} is not UTF-8", column=column)
    return parse_text(text)


def parse_text(text: str) -> Row | RowProblem:
    """Judge one line as text."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return problem(RowCode.BAD_JSON, f"not JSON: {error.msg}", column=error.pos + 1)
    except RecursionError:
        return _too_deep(text)
    except _DuplicateKey:
        key, column = json_places.first_duplicate(text)
        return problem(RowCode.DUPLICATE_KEY, f"the key '{shown_piece(key)}' stands twice in one object", column=column)
    except _BadNumber as error:
        what = "is no JSON" if error.code is RowCode.NAN_LITERAL else "is too large"
        column = json_places.column_of_literal(text, error.literal)
        return problem(error.code, f"the number {shown_piece(error.literal)} {what}", column=column)
    if text.count("[") + text.count("{") > MAX_DEPTH and json_places.depth(value, limit=MAX_DEPTH) > MAX_DEPTH:
        return _too_deep(text)
    try:
        row = row_formats.to_row(value)
    except Refused as error:
        column = json_places.column_of(text, error.path)
        return problem(error.code, error.message, column=column)
    if "\\u" in text and any(_SURROGATE.search(said) for said in _strings(row)):
        column = json_places.column_of_lone_surrogate(text)
        return problem(RowCode.LONE_SURROGATE, "half of a \\u pair stands alone: no Unicode text", column=column)
    return row


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) != len(items):
        raise _DuplicateKey
    return value


def _too_deep(text: str) -> RowProblem:
    column = json_places.column_at_depth(text, MAX_DEPTH + 1)
    return problem(RowCode.TOO_DEEP, f"brackets are nested more than {MAX_DEPTH} deep", column=column)


def _to_int(literal: str) -> int:
    if len(literal.lstrip("-")) > MAX_DIGITS:
        raise _BadNumber(RowCode.NUMBER_TOO_LARGE, literal)
    return int(literal)


def _to_float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _BadNumber(RowCode.NUMBER_TOO_LARGE, literal)
    return value


def _refuse_constant(literal: str) -> float:
    raise _BadNumber(RowCode.NAN_LITERAL, literal)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_to_int, parse_float=_to_float, parse_constant=_refuse_constant
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_row(value: object) -> Row | None:
    """Bring a decoded JSON value to a row; None where it is none (parse_line tells why)."""
    try:
        return row_formats.to_row(value)
    except Refused:
        return None


def _strings(row: Row) -> list[str]:
    if isinstance(row, Chat):
        return [message.content for message in row.messages]
    return [row.prompt, row.completion] if isinstance(row, Completion) else [row.text]


def prompt_key(row: Row) -> int:
    """Return a number that is equal for rows asking the same (within this process only)."""
    if isinstance(row, Chat):
        messages = row.messages
        last = len(messages) - 1
        while messages[last].role != "assistant":
            last -= 1
        return hash(tuple([message.content for message in messages[:last]]))
    return hash((row.prompt,)) if isinstance(row, Completion) else hash(row.text)
