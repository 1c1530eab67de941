"""What a row can be, and what can be wrong with a line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

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


def problem(code: RowCode, message: str, *, column: int = 1) -> RowProblem:
    """Return a problem with the fix that goes with its code."""
    return RowProblem(column=column, code=code, message=message, fix=FIXES[code])
