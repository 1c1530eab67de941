"""From a decoded JSON value to a row: which format it has, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from overnight.domain.row_shapes import Chat, Completion, Message, Row, RowCode, RowFormat, Text


class Refused(Exception):
    """Ends the judging of a value: the path names the key."""

    def __init__(self, code: RowCode, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


def shown_piece(text: str, limit: int = 40) -> str:
    """Return a short, printable piece of foreign text."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in cut)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def to_row(value: object) -> Row:
    """Return the row that a value is. Raises Refused."""
    if not isinstance(value, dict):
        raise Refused(RowCode.NOT_OBJECT, f"the line is {_kind(value)}, not an object")
    _refuse_fields(value, _ROW_FIELDS)
    if value.get("messages") is not None and _KEYS_BUT_MESSAGES.isdisjoint(value):
        return _from_messages(value)  # what most rows are
    present = {key for key in value if value[key] is not None}
    complete = [(format_, build) for format_, keys, build in _FORMATS if keys <= present]
    if not complete:
        raise _incomplete(value)
    if len(complete) > 1:
        names = " and ".join(format_.value for format_, _ in complete)
        raise Refused(RowCode.AMBIGUOUS_FORMAT, f"the row is {names} at once")
    return complete[0][1](value)


def _incomplete(value: dict[str, Any]) -> Refused:
    """Name what is missing to the format that was probably meant."""
    for key in ("messages", "conversations"):
        if key in value:
            return Refused(RowCode.NO_MESSAGES, f"'{key}' is null", key)
    pairs = (("prompt", "completion"), ("completion", "prompt"), ("chosen", "rejected"), ("rejected", "chosen"),
             ("instruction", "output"), ("output", "instruction"))  # fmt: skip
    for have, want in pairs:
        if value.get(have) is not None:
            return Refused(RowCode.MISSING_KEY, f"'{have}' stands without '{want}'", have)
    if not value:
        return Refused(RowCode.UNKNOWN_FORMAT, "the object is empty")
    names = ", ".join(f"'{shown_piece(key)}'" for key in list(value)[:5])
    return Refused(RowCode.UNKNOWN_FORMAT, f"no known format has the keys {names}")


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
                raise Refused(RowCode.TOOL_CALLS, f"'{name}' cannot be trained", *path, name)
            if name in _MEDIA_FIELDS:
                raise Refused(RowCode.MULTIMODAL, f"'{name}' cannot be trained", *path, name)
            raise Refused(RowCode.UNSUPPORTED_FIELD, f"'{name}' would be lost", *path, name)


_ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES = {
    **_ROLES, "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
    "model": "assistant", "bot": "assistant",
}  # fmt: skip
_TOOL_ROLES = frozenset({"tool", "function", "ipython", "observation", "function_call", "function_response"})


def _messages(items: object, key: str, *, roles: dict[str, str] = _ROLES) -> tuple[Message, ...]:
    if not isinstance(items, list):
        raise Refused(RowCode.NO_MESSAGES, f"'{key}' is {_kind(items)}, not a list of messages", key)
    if not items:
        raise Refused(RowCode.EMPTY_MESSAGES, f"'{key}' is an empty list", key)
    return tuple([_message(item, key, index, roles) for index, item in enumerate(items)])


def _message(item: object, key: str, index: int, roles: dict[str, str]) -> Message:
    if not isinstance(item, dict):
        raise Refused(RowCode.MESSAGE_NOT_OBJECT, f"message {index + 1} is {_kind(item)}", key, index)
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
        raise Refused(RowCode.EMPTY_ANSWER, f"message {index + 1}, an answer, is empty", key, index, content_key)
    return Message(role, content, "weight" not in item or _is_learnt(item, key, index))


def _bad_role(role: object, key: str, index: int, role_key: str) -> Refused:
    if role is None:
        return Refused(RowCode.MISSING_ROLE, f"message {index + 1} has no '{role_key}'", key, index)
    if isinstance(role, str) and role in _TOOL_ROLES:
        return Refused(RowCode.TOOL_CALLS, f"message {index + 1} has the role '{role}'", key, index, role_key)
    told = shown_piece(json.dumps(role, ensure_ascii=False))
    return Refused(RowCode.UNKNOWN_ROLE, f"message {index + 1} has the role {told}", key, index, role_key)


def _bad_content(content: object, key: str, index: int, content_key: str) -> Refused:
    place = f"message {index + 1}"
    if content is None:
        return Refused(RowCode.MISSING_CONTENT, f"{place} has no '{content_key}'", key, index)
    if isinstance(content, list):
        return Refused(RowCode.MULTIMODAL, f"the content of {place} is a list of parts", key, index, content_key)
    return Refused(RowCode.CONTENT_NOT_STRING, f"the content of {place} is {_kind(content)}", key, index, content_key)


def _is_learnt(item: dict[str, Any], key: str, index: int) -> bool:
    weight = item.get("weight")
    if weight is None or (weight == 1 and not isinstance(weight, bool)):
        return True
    if weight == 0 and not isinstance(weight, bool):
        return False
    raise Refused(
        RowCode.BAD_WEIGHT,
        f"message {index + 1} has the weight {shown_piece(json.dumps(weight))}",
        key,
        index,
        "weight",
    )


def _require_answer(messages: tuple[Message, ...], key: str, *, start: int = 0) -> None:
    for message in messages[start:]:
        if message.role == "assistant" and message.is_learnt:
            break
    else:
        raise Refused(RowCode.NO_ASSISTANT, f"'{key}' has no answer of the assistant to learn", key)


def _string(value: dict[str, Any], key: str) -> str:
    item = value[key]
    if not isinstance(item, str):
        raise Refused(RowCode.CONTENT_NOT_STRING, f"'{key}' is {_kind(item)}, not a string", key)
    return item


def _answer(value: dict[str, Any], key: str) -> str:
    answer = _string(value, key)
    if not answer.strip():
        raise Refused(RowCode.EMPTY_ANSWER, f"'{key}' is empty", key)
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
        raise Refused(RowCode.UNSUPPORTED_FIELD, "'history' would be lost", "history")
    instruction, given = _string(value, "instruction"), _optional(value, "input")
    question = f"{instruction}\n\n{given}" if given else instruction
    messages = (Message("user", question), Message("assistant", _answer(value, "output")))
    return Chat(_with_system(value, messages), RowFormat.INSTRUCTION)


def _from_prompt(value: dict[str, Any], key: str, format_: RowFormat) -> Row:
    prompt, answer = value["prompt"], value[key]
    if isinstance(prompt, str) and isinstance(answer, str):
        return Completion(prompt, _answer(value, key), format_)
    if not isinstance(prompt, str | list):
        raise Refused(RowCode.CONTENT_NOT_STRING, f"'prompt' is {_kind(prompt)}, not a string or messages", "prompt")
    if not isinstance(answer, str | list):
        raise Refused(RowCode.CONTENT_NOT_STRING, f"'{key}' is {_kind(answer)}, not a string or messages", key)
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
        raise Refused(
            RowCode.CONTENT_NOT_STRING, f"'chosen' is {_kind(chosen)} and 'rejected' {_kind(rejected)}", "rejected"
        )
    if isinstance(rejected, list):
        _messages(rejected, "rejected")
    if value.get("prompt") is not None:
        return _from_prompt(value, "chosen", RowFormat.PREFERENCE)
    if not isinstance(chosen, list):
        raise Refused(RowCode.MISSING_KEY, "'chosen' and 'rejected' stand without 'prompt'", "chosen")
    messages, other = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    shared = next((i for i, (a, b) in enumerate(zip(messages, other, strict=False)) if a != b), 0)
    _require_answer(messages, "chosen", start=shared)
    return Chat(messages, RowFormat.PREFERENCE, first_learnt=shared)


def _from_text(value: dict[str, Any]) -> Row:
    text = _string(value, "text")
    if not text.strip():
        raise Refused(RowCode.EMPTY_TEXT, "'text' is empty", "text")
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
