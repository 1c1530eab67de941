"""Many lines judged at once: the quick way for blocks in which every line is a plain row of one format.

The decoders know only the keys of one format, so a block they take holds no other key, no number and no deep nesting.
Three things they let pass are checked by counting:

- where lines end: each line starts with "{" and ends with "}", and there are as many rows as lines, so no row goes over
  a line and no line holds two;
- keys that stand twice: a decoded object needs each key once, so as many '"key"' in the text as objects means once;
- keys written with escapes, which that counting would miss: none of their letters is written as an escape.

A block that fails is judged line by line, exactly; so nothing here decides what a row is, only how fast it is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from overnight.domain.rows import MAX_DIGITS, Chat, RowFormat, prompt_key, to_row


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    pass


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Messages(_Strict):
    messages: list[_Message]


class _Turn(_Strict):
    from_: Literal["system", "human", "user", "gpt", "assistant"] = msgspec.field(name="from")
    value: str


class _Conversations(_Strict):
    conversations: list[_Turn]


class _Text(_Strict):
    text: str


class _Completion(_Strict):
    prompt: str
    completion: str


class _Preference(_Strict):
    prompt: str
    chosen: str
    rejected: str


class _Instruction(_Strict):
    instruction: str
    input: str
    output: str


class _BareInstruction(_Strict):
    instruction: str
    output: str


@dataclass(frozen=True, slots=True)
class JudgedBlock:
    """A block in which every line is a good row."""

    formats: dict[RowFormat, int]  # rows of each
    prompt_keys: list[int]  # one a row, as rows.prompt_key gives them
    roles: set[tuple[str, ...]]  # the orders of roles that occur
    needs_template: bool  # there are conversations, which are written by a chat template only


Rows = Sequence[Any]
_Checked = tuple[list[int], int, set[tuple[str, ...]]]


def _check_messages(rows: Rows) -> _Checked | None:
    keys: list[int] = []
    roles: set[tuple[str, ...]] = set()
    num_messages = 0
    for row in rows:
        messages = row.messages
        num_messages += len(messages)
        if len(messages) == 2:  # what most rows are
            asked, said = messages
            if asked.role != "assistant" == said.role:
                if not said.content or said.content.isspace():
                    return None
                keys.append(hash((asked.content,)))
                roles.add((asked.role, "assistant"))
                continue
        last = -1
        for index, message in enumerate(messages):
            if message.role == "assistant":
                if not message.content or message.content.isspace():
                    return None
                last = index
        if last < 0:
            return None
        keys.append(hash(tuple([message.content for message in messages[:last]])))
        roles.add(tuple([message.role for message in messages]))
    return keys, num_messages, roles


_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def _check_conversations(rows: Rows) -> _Checked | None:
    keys: list[int] = []
    roles: set[tuple[str, ...]] = set()
    num_messages = 0
    for row in rows:
        turns = row.conversations
        order = tuple([_SPEAKERS[turn.from_] for turn in turns])
        num_messages += len(turns)
        last = -1
        for index, role in enumerate(order):
            if role == "assistant":
                said = turns[index].value
                if not said or said.isspace():
                    return None
                last = index
        if last < 0:
            return None
        keys.append(hash(tuple([turn.value for turn in turns[:last]])))
        roles.add(order)
    return keys, num_messages, roles


def _check_texts(rows: Rows) -> _Checked | None:
    texts = [row.text for row in rows]
    if not all(texts) or any(map(str.isspace, texts)):
        return None
    return list(map(hash, texts)), 0, set()


def _check_completions(rows: Rows) -> _Checked | None:
    return _check_answers([row.completion for row in rows], [hash((row.prompt,)) for row in rows])


def _check_preferences(rows: Rows) -> _Checked | None:
    return _check_answers([row.chosen for row in rows], [hash((row.prompt,)) for row in rows])


def _check_instructions(rows: Rows) -> _Checked | None:
    asked = [f"{row.instruction}\n\n{row.input}" if row.input else row.instruction for row in rows]
    return _check_answers([row.output for row in rows], [hash((question,)) for question in asked], is_chat=True)


def _check_bare_instructions(rows: Rows) -> _Checked | None:
    return _check_answers([row.output for row in rows], [hash((row.instruction,)) for row in rows], is_chat=True)


def _check_answers(answers: list[str], keys: list[int], *, is_chat: bool = False) -> _Checked | None:
    if not all(answers) or any(map(str.isspace, answers)):
        return None
    return keys, 0, {("user", "assistant")} if is_chat else set()


@dataclass(frozen=True, slots=True)
class _Judge:
    format: RowFormat
    decode_lines: Callable[[bytes], Rows]
    row_keys: tuple[bytes, ...]  # one a row
    message_keys: tuple[bytes, ...]  # one a message
    check: Callable[[Rows], _Checked | None]

    def judge(self, block: bytes, num_lines: int) -> JudgedBlock | None:
        try:
            rows = self.decode_lines(block)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if len(rows) != num_lines or any(block.count(key) != num_lines for key in self.row_keys):
            return None
        checked = self.check(rows)
        if checked is None:
            return None
        prompt_keys, num_messages, roles = checked
        if any(block.count(key) != num_messages for key in self.message_keys):
            return None
        is_chat = self.format in (RowFormat.MESSAGES, RowFormat.SHAREGPT)
        return JudgedBlock({self.format: num_lines}, prompt_keys, roles, is_chat)


def _judge_of(
    format_: RowFormat, kind: type[Any], keys: str, check: Callable[[Rows], _Checked | None], message_keys: str = ""
) -> _Judge:
    quoted = tuple(f'"{key}"'.encode() for key in keys.split())
    inner = tuple(f'"{key}"'.encode() for key in message_keys.split())
    return _Judge(format_, msgspec.json.Decoder(kind).decode_lines, quoted, inner, check)


_ANY = msgspec.json.Decoder(dict[str, Any])
_PARTED_KEY = re.compile(rb'"[ \t\r]+:')


def _judge_loosely(block: bytes, num_lines: int) -> JudgedBlock | None:
    """Judge a block of mixed formats, or with keys of no format; about half as fast, and just as exact.

    Here every key of every object counts: as many '":' in the text as decoded keys means that none stands twice.
    """
    if _PARTED_KEY.search(block):
        return None
    try:
        values = _ANY.decode_lines(block)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(values) != num_lines:
        return None
    formats: dict[RowFormat, int] = {}
    prompt_keys: list[int] = []
    roles: set[tuple[str, ...]] = set()
    num_keys = 0
    needs_template = False
    for value in values:
        size = _plain_size(value)
        row = to_row(value) if size else None
        if row is None:
            return None
        num_keys += size
        formats[row.format] = formats.get(row.format, 0) + 1
        prompt_keys.append(prompt_key(row))
        if isinstance(row, Chat):
            roles.add(tuple([message.role for message in row.messages]))
            needs_template |= row.needs_template
    if num_keys != block.count(b'":') - block.count(b'\\":'):
        return None
    return JudgedBlock(formats, prompt_keys, roles, needs_template)


def _plain_size(value: dict[str, Any]) -> int:
    """Return how many keys a row has, those of its messages included; 0 where a closer look is needed."""
    size = len(value)
    for key, item in value.items():
        if key[-1:] in _ODD_ENDS:
            return 0
        if isinstance(item, list):
            for part in item:
                if not isinstance(part, dict):
                    return 0
                size += len(part)
                for inner, inner_item in part.items():
                    if inner[-1:] in _ODD_ENDS or not (inner_item.__class__ is str or _is_plain(inner_item)):
                        return 0
        elif not (item.__class__ is str or _is_plain(item)):
            return 0
    return size


def _is_plain(item: object) -> bool:
    if isinstance(item, int):
        return -_TOO_LARGE < item < _TOO_LARGE
    return not isinstance(item, dict | list)


_TOO_LARGE: int = 10**MAX_DIGITS
_ODD_ENDS = frozenset({"", '"', "\\"})
"""Ends of keys that would be miscounted."""


class BlockJudge:
    """Judges blocks of whole lines; remembers which format came last, since files are mostly of one."""

    def __init__(self) -> None:
        self._judges = [
            _judge_of(RowFormat.MESSAGES, _Messages, "messages", _check_messages, "role content"),
            _judge_of(RowFormat.SHAREGPT, _Conversations, "conversations", _check_conversations, "from value"),
            _judge_of(RowFormat.PROMPT_COMPLETION, _Completion, "prompt completion", _check_completions),
            _judge_of(RowFormat.TEXT, _Text, "text", _check_texts),
            _judge_of(RowFormat.INSTRUCTION, _Instruction, "instruction input output", _check_instructions),
            _judge_of(RowFormat.INSTRUCTION, _BareInstruction, "instruction output", _check_bare_instructions),
            _judge_of(RowFormat.PREFERENCE, _Preference, "prompt chosen rejected", _check_preferences),
        ]

    def judge(self, block: bytes, num_lines: int) -> JudgedBlock | None:
        """Return what a block of lines holds (each ended by one line feed); None where a closer look is needed."""
        if not block.startswith(b"{") or not block.endswith(b"}\n") or block.count(b"}\n{") != num_lines - 1:
            return None
        if b"\\u006" in block or b"\\u007" in block:
            return None
        for place, judge in enumerate(self._judges):
            judged = judge.judge(block, num_lines)
            if judged is not None:
                if place:
                    self._judges.insert(0, self._judges.pop(place))
                return judged
        return _judge_loosely(block, num_lines)
