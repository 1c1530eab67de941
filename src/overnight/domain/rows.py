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
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from overnight.domain import json_places

MAX_DEPTH = 64
"""Nesting of brackets in a row; deeper ones are refused."""

MAX_DIGITS = 100
"""Digits of a whole number in a row; longer ones are refused."""


class RowFormat(StrEnum):
    """The shapes that a row can have."""

    MESSAGES = "messages"
    PROMPT_COMPLETION = "prompt_completion"
    TEXT = "text"
    INSTRUCTION = "instruction"
    SHAREGPT = "sharegpt"
    PREFERENCE = "preference"


class RowCode(StrEnum):
    """What can be wrong with a line; stable words for programs."""

    BAD_JSON = "bad_json"
    NOT_UTF8 = "not_utf8"
    NOT_OBJECT = "not_object"
    TOO_DEEP = "too_deep"
    NUMBER_TOO_LARGE = "number_too_large"
    NAN_LITERAL = "nan_literal"
    DUPLICATE_KEY = "duplicate_key"
    LONE_SURROGATE = "lone_surrogate"
    LINE_TOO_LONG = "line_too_long"
    UNKNOWN_FORMAT = "unknown_format"
    AMBIGUOUS_FORMAT = "ambiguous_format"
    MISSING_KEY = "missing_key"
    NO_MESSAGES = "no_messages"
    EMPTY_MESSAGES = "empty_messages"
    MESSAGE_NOT_OBJECT = "message_not_object"
    MISSING_ROLE = "missing_role"
    UNKNOWN_ROLE = "unknown_role"
    MISSING_CONTENT = "missing_content"
    CONTENT_NOT_STRING = "content_not_string"
    NO_ASSISTANT = "no_assistant"
    EMPTY_ANSWER = "empty_answer"
    EMPTY_TEXT = "empty_text"
    TOOL_CALLS = "tool_calls_unsupported"
    MULTIMODAL = "multimodal_unsupported"
    UNSUPPORTED_FIELD = "unsupported_field"
    BAD_WEIGHT = "bad_weight"
    TEMPLATE_REFUSED = "template_refused"


FIXES: dict[RowCode, str] = {
    RowCode.BAD_JSON: "write one complete JSON object on the line, for example with json.dumps",
    RowCode.NOT_UTF8: "save the file as UTF-8",
    RowCode.NOT_OBJECT: 'write an object: {"messages": [...]}',
    RowCode.TOO_DEEP: f"nest at most {MAX_DEPTH} levels",
    RowCode.NUMBER_TOO_LARGE: "remove the number, or write it as a string",
    RowCode.NAN_LITERAL: "JSON has no NaN and no Infinity: write null or leave the key out",
    RowCode.DUPLICATE_KEY: "keep one of the two values",
    RowCode.LONE_SURROGATE: "write the character itself, or both halves of the \\u pair",
    RowCode.LINE_TOO_LONG: "split the row, or put a line break after each row",
    RowCode.UNKNOWN_FORMAT: "use messages, prompt + completion, text, instruction + output, conversations, or"
    " prompt + chosen + rejected",
    RowCode.AMBIGUOUS_FORMAT: "keep the keys of one format only",
    RowCode.MISSING_KEY: "add the missing key",
    RowCode.NO_MESSAGES: "make it a list of messages",
    RowCode.EMPTY_MESSAGES: "add messages, or remove the row",
    RowCode.MESSAGE_NOT_OBJECT: 'write each message as {"role": ..., "content": ...}',
    RowCode.MISSING_ROLE: "add the role: system, user or assistant",
    RowCode.UNKNOWN_ROLE: "use system, user or assistant (in conversations also human and gpt)",
    RowCode.MISSING_CONTENT: "add what is said",
    RowCode.CONTENT_NOT_STRING: "write it as a string",
    RowCode.NO_ASSISTANT: "add an answer of the assistant: only answers are learnt",
    RowCode.EMPTY_ANSWER: "write the answer, or remove the row",
    RowCode.EMPTY_TEXT: "write the text, or remove the row",
    RowCode.TOOL_CALLS: "rewrite the row without tool calls: only plain text can be trained",
    RowCode.MULTIMODAL: "rewrite the content as one string: only plain text can be trained",
    RowCode.UNSUPPORTED_FIELD: "put what it says into the messages, or remove the key",
    RowCode.BAD_WEIGHT: "use 1 (learnt) or 0 (not learnt)",
    RowCode.TEMPLATE_REFUSED: "order the roles as the model's chat template wants them",
}
"""What to do about each problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """Why a line cannot be trained."""

    column: int  # 1-based, in characters: of the fault, or of the key it is about
    code: RowCode
    message: str
    fix: str


# Structs, not dataclasses: millions are made, and these are made six times as fast.


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str  # "system" | "user" | "assistant"
    content: str
    is_learnt: bool = True  # False where the row gives this turn the weight 0


class Chat(msgspec.Struct, frozen=True):
    """A conversation; the answers from ``first_learnt`` on are learnt."""

    messages: tuple[Message, ...]
    format: RowFormat = RowFormat.MESSAGES
    first_learnt: int = 0  # messages before it are the prompt

    @property
    def needs_template(self) -> bool:
        """Return whether only a chat template can write it; an instruction can be written as plain text too."""
        return self.format is not RowFormat.INSTRUCTION


class Completion(msgspec.Struct, frozen=True):
    """A plain prompt and what follows it; no chat template is used."""

    prompt: str
    completion: str
    format: RowFormat = RowFormat.PROMPT_COMPLETION


class Text(msgspec.Struct, frozen=True):
    """Plain text, learnt as a whole."""

    text: str
    format: RowFormat = RowFormat.TEXT


Row = Chat | Completion | Text


class _Refused(Exception):
    """Ends the judging of a row: the path names the key."""

    def __init__(self, code: RowCode, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


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
        return problem(RowCode.DUPLICATE_KEY, f"the key '{_shown(key)}' stands twice in one object", column=column)
    except _BadNumber as error:
        what = "is no JSON" if error.code is RowCode.NAN_LITERAL else "is too large"
        column = json_places.column_of_literal(text, error.literal)
        return problem(error.code, f"the number {_shown(error.literal)} {what}", column=column)
    if text.count("[") + text.count("{") > MAX_DEPTH and json_places.depth(value, limit=MAX_DEPTH) > MAX_DEPTH:
        return _too_deep(text)
    try:
        row = _to_row(value)
    except _Refused as error:
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


def problem(code: RowCode, message: str, *, column: int = 1) -> RowProblem:
    """Return a problem with the fix that goes with its code."""
    return RowProblem(column=column, code=code, message=message, fix=FIXES[code])


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


def _shown(text: str, limit: int = 40) -> str:
    """Return a short, printable piece of foreign text."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in cut)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# from a decoded value to a row


def to_row(value: object) -> Row | None:
    """Bring a decoded JSON value to a row; None where it is none (parse_line tells why)."""
    try:
        return _to_row(value)
    except _Refused:
        return None


def _to_row(value: object) -> Row:
    if not isinstance(value, dict):
        raise _Refused(RowCode.NOT_OBJECT, f"the line is {_kind(value)}, not an object")
    _refuse_fields(value, _ROW_FIELDS)
    if value.get("messages") is not None and _KEYS_BUT_MESSAGES.isdisjoint(value):
        return _from_messages(value)  # what most rows are
    present = {key for key in value if value[key] is not None}
    complete = [(format_, build) for format_, keys, build in _FORMATS if keys <= present]
    if not complete:
        raise _incomplete(value)
    if len(complete) > 1:
        names = " and ".join(format_.value for format_, _ in complete)
        raise _Refused(RowCode.AMBIGUOUS_FORMAT, f"the row is {names} at once")
    return complete[0][1](value)


def _incomplete(value: dict[str, Any]) -> _Refused:
    """Name what is missing to the format that was probably meant."""
    for key in ("messages", "conversations"):
        if key in value:
            return _Refused(RowCode.NO_MESSAGES, f"'{key}' is null", key)
    pairs = (("prompt", "completion"), ("completion", "prompt"), ("chosen", "rejected"), ("rejected", "chosen"),
             ("instruction", "output"), ("output", "instruction"))  # fmt: skip
    for have, want in pairs:
        if value.get(have) is not None:
            return _Refused(RowCode.MISSING_KEY, f"'{have}' stands without '{want}'", have)
    if not value:
        return _Refused(RowCode.UNKNOWN_FORMAT, "the object is empty")
    names = ", ".join(f"'{_shown(key)}'" for key in list(value)[:5])
    return _Refused(RowCode.UNKNOWN_FORMAT, f"no known format has the keys {names}")


_TOOL_FIELDS = frozenset({"tools", "functions", "tool_calls", "function_call", "tool_call_id"})
_MEDIA_FIELDS = frozenset({"images", "image", "audio", "audios", "video", "videos"})
_ROW_FIELDS = _TOOL_FIELDS | _MEDIA_FIELDS
_MESSAGE_FIELDS = _ROW_FIELDS | {"reasoning_content", "reasoning", "thinking"}


def _refuse_fields(value: dict[str, Any], names: frozenset[str], *path: str | int) -> None:
    if names.isdisjoint(value):
        return
    for name in value:
        if name in names and value[name]:
            if name in _TOOL_FIELDS:
                raise _Refused(RowCode.TOOL_CALLS, f"'{name}' cannot be trained", *path, name)
            if name in _MEDIA_FIELDS:
                raise _Refused(RowCode.MULTIMODAL, f"'{name}' cannot be trained", *path, name)
            raise _Refused(RowCode.UNSUPPORTED_FIELD, f"'{name}' would be lost", *path, name)


_ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES = {
    **_ROLES, "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
    "model": "assistant", "bot": "assistant",
}  # fmt: skip
_TOOL_ROLES = frozenset({"tool", "function", "ipython", "observation", "function_call", "function_response"})


def _messages(items: object, key: str, *, roles: dict[str, str] = _ROLES) -> tuple[Message, ...]:
    if not isinstance(items, list):
        raise _Refused(RowCode.NO_MESSAGES, f"'{key}' is {_kind(items)}, not a list of messages", key)
    if not items:
        raise _Refused(RowCode.EMPTY_MESSAGES, f"'{key}' is an empty list", key)
    return tuple([_message(item, key, index, roles) for index, item in enumerate(items)])


def _message(item: object, key: str, index: int, roles: dict[str, str]) -> Message:
    if not isinstance(item, dict):
        raise _Refused(RowCode.MESSAGE_NOT_OBJECT, f"message {index + 1} is {_kind(item)}", key, index)
    role_key, content_key = "role", "content"
    if roles is _SHAREGPT_ROLES and ("from" in item or "value" in item):
        role_key, content_key = "from", "value"
    given = item.get(role_key)
    role = roles.get(given) if isinstance(given, str) else None
    if role is None:
        raise _bad_role(given, key, index, role_key)
    _refuse_fields(item, _MESSAGE_FIELDS, key, index)
    content = item.get(content_key)
    if not isinstance(content, str):
        raise _bad_content(content, key, index, content_key)
    if role == "assistant" and (not content or content.isspace()):
        raise _Refused(RowCode.EMPTY_ANSWER, f"message {index + 1}, an answer, is empty", key, index, content_key)
    return Message(role, content, "weight" not in item or _is_learnt(item, key, index))


def _bad_role(role: object, key: str, index: int, role_key: str) -> _Refused:
    if role is None:
        return _Refused(RowCode.MISSING_ROLE, f"message {index + 1} has no '{role_key}'", key, index)
    if isinstance(role, str) and role in _TOOL_ROLES:
        return _Refused(RowCode.TOOL_CALLS, f"message {index + 1} has the role '{role}'", key, index, role_key)
    told = _shown(json.dumps(role, ensure_ascii=False))
    return _Refused(RowCode.UNKNOWN_ROLE, f"message {index + 1} has the role {told}", key, index, role_key)


def _bad_content(content: object, key: str, index: int, content_key: str) -> _Refused:
    place = f"message {index + 1}"
    if content is None:
        return _Refused(RowCode.MISSING_CONTENT, f"{place} has no '{content_key}'", key, index)
    if isinstance(content, list):
        return _Refused(RowCode.MULTIMODAL, f"the content of {place} is a list of parts", key, index, content_key)
    return _Refused(RowCode.CONTENT_NOT_STRING, f"the content of {place} is {_kind(content)}", key, index, content_key)


def _is_learnt(item: dict[str, Any], key: str, index: int) -> bool:
    weight = item.get("weight")
    if weight is None or (weight == 1 and not isinstance(weight, bool)):
        return True
    if weight == 0 and not isinstance(weight, bool):
        return False
    raise _Refused(
        RowCode.BAD_WEIGHT, f"message {index + 1} has the weight {_shown(json.dumps(weight))}", key, index, "weight"
    )


def _require_answer(messages: tuple[Message, ...], key: str, *, start: int = 0) -> None:
    for message in messages[start:]:
        if message.role == "assistant" and message.is_learnt:
            break
    else:
        raise _Refused(RowCode.NO_ASSISTANT, f"'{key}' has no answer of the assistant to learn", key)


def _string(value: dict[str, Any], key: str) -> str:
    item = value[key]
    if not isinstance(item, str):
        raise _Refused(RowCode.CONTENT_NOT_STRING, f"'{key}' is {_kind(item)}, not a string", key)
    return item


def _answer(value: dict[str, Any], key: str) -> str:
    answer = _string(value, key)
    if not answer.strip():
        raise _Refused(RowCode.EMPTY_ANSWER, f"'{key}' is empty", key)
    return answer


def _optional(value: dict[str, Any], key: str) -> str:
    return _string(value, key) if value.get(key) is not None else ""


def _with_system(value: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = _optional(value, "system")
    if not system or messages[0].role == "system":
        return messages
    return (Message("system", system), *messages)


def _from_messages(value: dict[str, Any]) -> Row:
    messages = _messages(value["messages"], "messages")
    _require_answer(messages, "messages")
    return Chat(messages)


def _from_conversations(value: dict[str, Any]) -> Row:
    messages = _messages(value["conversations"], "conversations", roles=_SHAREGPT_ROLES)
    _require_answer(messages, "conversations")
    return Chat(_with_system(value, messages), RowFormat.SHAREGPT)


def _from_instruction(value: dict[str, Any]) -> Row:
    if value.get("history"):
        raise _Refused(RowCode.UNSUPPORTED_FIELD, "'history' would be lost", "history")
    instruction, given = _string(value, "instruction"), _optional(value, "input")
    question = f"{instruction}\n\n{given}" if given else instruction
    messages = (Message("user", question), Message("assistant", _answer(value, "output")))
    return Chat(_with_system(value, messages), RowFormat.INSTRUCTION)


def _from_prompt(value: dict[str, Any], key: str, format_: RowFormat) -> Row:
    prompt, answer = value["prompt"], value[key]
    if isinstance(prompt, str) and isinstance(answer, str):
        return Completion(prompt, _answer(value, key), format_)
    if not isinstance(prompt, str | list):
        raise _Refused(RowCode.CONTENT_NOT_STRING, f"'prompt' is {_kind(prompt)}, not a string or messages", "prompt")
    if not isinstance(answer, str | list):
        raise _Refused(RowCode.CONTENT_NOT_STRING, f"'{key}' is {_kind(answer)}, not a string or messages", key)
    asked = (Message("user", prompt),) if isinstance(prompt, str) else _messages(prompt, "prompt")
    said = (Message("assistant", _answer(value, key)),) if isinstance(answer, str) else _messages(answer, key)
    _require_answer(said, key)
    if said[: len(asked)] == asked:  # some sets repeat the prompt in the answer's messages
        said = said[len(asked) :]
    return Chat((*asked, *said), format_, first_learnt=len(asked))


def _from_completion(value: dict[str, Any]) -> Row:
    return _from_prompt(value, "completion", RowFormat.PROMPT_COMPLETION)


def _from_preference(value: dict[str, Any]) -> Row:
    chosen, rejected = value["chosen"], value["rejected"]
    if type(chosen) is not type(rejected):
        raise _Refused(
            RowCode.CONTENT_NOT_STRING, f"'chosen' is {_kind(chosen)} and 'rejected' {_kind(rejected)}", "rejected"
        )
    if isinstance(rejected, list):
        _messages(rejected, "rejected")
    if value.get("prompt") is not None:
        return _from_prompt(value, "chosen", RowFormat.PREFERENCE)
    if not isinstance(chosen, list):
        raise _Refused(RowCode.MISSING_KEY, "'chosen' and 'rejected' stand without 'prompt'", "chosen")
    messages, other = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    shared = next((i for i, (a, b) in enumerate(zip(messages, other, strict=False)) if a != b), 0)
    _require_answer(messages, "chosen", start=shared)
    return Chat(messages, RowFormat.PREFERENCE, first_learnt=shared)


def _from_text(value: dict[str, Any]) -> Row:
    text = _string(value, "text")
    if not text.strip():
        raise _Refused(RowCode.EMPTY_TEXT, "'text' is empty", "text")
    return Text(text)


_FORMATS: tuple[tuple[RowFormat, frozenset[str], Callable[[dict[str, Any]], Row]], ...] = (
    (RowFormat.MESSAGES, frozenset({"messages"}), _from_messages),
    (RowFormat.SHAREGPT, frozenset({"conversations"}), _from_conversations),
    (RowFormat.PREFERENCE, frozenset({"chosen", "rejected"}), _from_preference),
    (RowFormat.PROMPT_COMPLETION, frozenset({"prompt", "completion"}), _from_completion),
    (RowFormat.INSTRUCTION, frozenset({"instruction", "output"}), _from_instruction),
    (RowFormat.TEXT, frozenset({"text"}), _from_text),
)


_KEYS_BUT_MESSAGES = frozenset().union(*(keys for _, keys, _ in _FORMATS)) - {"messages"}


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
