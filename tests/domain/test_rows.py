"""Each line is brought to a row, or refused by code, column and fix."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.domain.row_shapes import FIXES
from overnight.domain.rows import (
    Chat,
    Completion,
    Message,
    RowCode,
    RowFormat,
    RowProblem,
    Text,
    parse_line,
    prompt_key,
    to_row,
)

ASKED = {"role": "user", "content": "q"}
SAID = {"role": "assistant", "content": "a"}
CHAT = (Message("user", "q"), Message("assistant", "a"))


def line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


GOOD = {
    "messages": ({"messages": [ASKED, SAID]}, Chat(CHAT)),
    "system": (
        {"messages": [{"role": "system", "content": "s"}, ASKED, SAID]},
        Chat((Message("system", "s"), *CHAT)),
    ),
    "weight": (
        {"messages": [ASKED, {**SAID, "weight": 0}, ASKED, {**SAID, "weight": 1}]},
        Chat((*CHAT[:1], Message("assistant", "a", False), *CHAT)),
    ),
    "text": ({"text": "t"}, Text("t")),
    "strings": ({"prompt": "p", "completion": "c"}, Completion("p", "c")),
    "prompt empty": ({"prompt": "", "completion": "c"}, Completion("", "c")),
    "prompt and completion as messages": (
        {"prompt": [ASKED], "completion": [SAID]},
        Chat(CHAT, RowFormat.PROMPT_COMPLETION, 1),
    ),
    "prompt as messages only": (
        {"prompt": [ASKED], "completion": "a"},
        Chat(CHAT, RowFormat.PROMPT_COMPLETION, 1),
    ),
    "instruction": ({"instruction": "q", "output": "a"}, Chat(CHAT, RowFormat.INSTRUCTION)),
    "instruction with input": (
        {"instruction": "q", "input": "i", "output": "a"},
        Chat((Message("user", "q\n\ni"), CHAT[1]), RowFormat.INSTRUCTION),
    ),
    "instruction with null input": (
        {"instruction": "q", "input": None, "output": "a"},
        Chat(CHAT, RowFormat.INSTRUCTION),
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Chat(CHAT, RowFormat.SHAREGPT),
    ),
    "sharegpt with system": (
        {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Chat((Message("system", "s"), *CHAT), RowFormat.SHAREGPT),
    ),
    "preference strings": (
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        Completion("p", "c", RowFormat.PREFERENCE),
    ),
    "preference messages": (
        {"prompt": [ASKED], "chosen": [SAID], "rejected": [{**SAID, "content": "r"}]},
        Chat(CHAT, RowFormat.PREFERENCE, 1),
    ),
    "preference with the prompt repeated": (
        {"prompt": "q", "chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "r"}]},
        Chat(CHAT, RowFormat.PREFERENCE, 1),
    ),
    "preference without a prompt": (
        {"chosen": [ASKED, SAID], "rejected": [ASKED, {**SAID, "content": "r"}]},
        Chat(CHAT, RowFormat.PREFERENCE, 1),
    ),
    "other formats null": (
        {"messages": None, "prompt": "p", "completion": "c", "text": None},
        Completion("p", "c"),
    ),
    "other keys": ({"id": 7, "source": {"a": [1]}, "text": "t"}, Text("t")),
    "unicode": ({"text": "日本 🎉 é\u2028"}, Text("日本 🎉 é\u2028")),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_every_format_becomes_a_row(name: str) -> None:
    value, expected = GOOD[name]
    assert parse_line(line(value)) == expected


def test_a_row_of_five_hundred_turns_is_one_row() -> None:
    row = parse_line(line({"messages": [ASKED, SAID] * 250}))
    assert isinstance(row, Chat)
    assert len(row.messages) == 500


BAD: dict[str, tuple[bytes, RowCode, int]] = {
    "cut": (b'{"text": "a', RowCode.BAD_JSON, 10),
    "two objects": (b'{"text":"a"} {"text":"b"}', RowCode.BAD_JSON, 14),
    "single quotes": (b"{'text': 'a'}", RowCode.BAD_JSON, 2),
    "control character": (b'{"text":"a\x01"}', RowCode.BAD_JSON, 11),
    "zero byte": (b'{"text":"a\x00"}', RowCode.BAD_JSON, 11),
    "byte order mark inside": (b'\xef\xbb\xbf{"text":"a"}', RowCode.BAD_JSON, 1),
    "not utf-8": (b'{"text":"\xc3\xa9\xff"}', RowCode.NOT_UTF8, 11),
    "utf-8 surrogate": (b'{"text":"\xed\xa0\x80"}', RowCode.NOT_UTF8, 10),
    "overlong": (b'{"text":"\xc0\x80"}', RowCode.NOT_UTF8, 10),
    "lone surrogate": (b'{"text":"\\ud83d\\ude00 \\ud800"}', RowCode.LONE_SURROGATE, 23),
    "list": (b'[{"text":"a"}]', RowCode.NOT_OBJECT, 1),
    "string": (b'"text"', RowCode.NOT_OBJECT, 1),
    "null": (b"null", RowCode.NOT_OBJECT, 1),
    "nested for ever": (b"[" * 100_000, RowCode.TOO_DEEP, 65),
    "nested inside": (b'{"text":"a","x":' + b"[" * 70 + b"]" * 70 + b"}", RowCode.TOO_DEEP, 80),
    "objects inside": (b'{"x":' * 5000 + b"1" + b"}" * 5000, RowCode.TOO_DEEP, 64 * 5 + 1),
    "long integer": (b'{"text":"a","n":' + b"9" * 5000 + b"}", RowCode.NUMBER_TOO_LARGE, 17),
    "long negative": (b'{"text":"a","n":-' + b"9" * 101 + b"}", RowCode.NUMBER_TOO_LARGE, 17),
    "infinite": (b'{"text":"a","n":1e999}', RowCode.NUMBER_TOO_LARGE, 17),
    "nan": (b'{"text":"a","n":NaN}', RowCode.NAN_LITERAL, 17),
    "infinity": (b'{"text":"Infinity","n":-Infinity}', RowCode.NAN_LITERAL, 24),
    "duplicate": (b'{"text":"a","text":"b"}', RowCode.DUPLICATE_KEY, 13),
    "duplicate inside": (
        b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","content":"b"}]}',
        RowCode.DUPLICATE_KEY, 78,
    ),
    "duplicate by escape": (b'{"text":"a","t\\u0065xt":"b"}', RowCode.DUPLICATE_KEY, 13),
    "duplicate of no format": (b'{"text":"a","x":{"y":1,"y":2}}', RowCode.DUPLICATE_KEY, 24),
    "empty object": (b"{}", RowCode.UNKNOWN_FORMAT, 1),
    "unknown keys": (b'{"question":"q","answer":"a"}', RowCode.UNKNOWN_FORMAT, 1),
    "prompt alone": (b'{"prompt":"q"}', RowCode.MISSING_KEY, 2),
    "instruction alone": (b'{"id":1,"instruction":"q"}', RowCode.MISSING_KEY, 9),
    "chosen alone": (b'{"prompt":"p","chosen":"c"}', RowCode.MISSING_KEY, 2),
    "messages null": (b'{"messages":null}', RowCode.NO_MESSAGES, 2),
    "two formats": (b'{"text":"a","prompt":"p","completion":"c"}', RowCode.AMBIGUOUS_FORMAT, 1),
    "text is a number": (b'{"text":5}', RowCode.CONTENT_NOT_STRING, 2),
    "text is blank": (b'{"text":" \\n "}', RowCode.EMPTY_TEXT, 2),
    "completion is blank": (b'{"prompt":"p","completion":" "}', RowCode.EMPTY_ANSWER, 15),
    "prompt is an object": (b'{"prompt":{},"completion":"c"}', RowCode.CONTENT_NOT_STRING, 2),
    "history": (b'{"instruction":"q","output":"a","history":[["x","y"]]}', RowCode.UNSUPPORTED_FIELD, 33),
    "tools": (b'{"text":"a","tools":[{}]}', RowCode.TOOL_CALLS, 13),
    "images": (b'{"text":"a","images":["x"]}', RowCode.MULTIMODAL, 13),
    "chosen unlike rejected": (b'{"prompt":"p","chosen":"c","rejected":[]}', RowCode.CONTENT_NOT_STRING, 28),
}  # fmt: skip

BAD_MESSAGES: dict[str, tuple[Any, RowCode, str]] = {
    "no list": ("x", RowCode.NO_MESSAGES, '"messages"'),
    "an object": ({"role": "user"}, RowCode.NO_MESSAGES, '"messages"'),
    "empty": ([], RowCode.EMPTY_MESSAGES, '"messages"'),
    "a string in it": (["x"], RowCode.MESSAGE_NOT_OBJECT, '"x"'),
    "no role": ([ASKED, {"content": "x"}], RowCode.MISSING_ROLE, '{"content": "x"'),
    "role null": ([{"role": None, "content": "x"}], RowCode.MISSING_ROLE, '{"role": null'),
    "role number": ([{"role": 5, "content": "x"}], RowCode.UNKNOWN_ROLE, '"role": 5'),
    "role unknown": ([ASKED, {"role": "bot", "content": "x"}], RowCode.UNKNOWN_ROLE, '"role": "bot"'),
    "role tool": ([ASKED, {"role": "tool", "content": "x"}], RowCode.TOOL_CALLS, '"role": "tool"'),
    "tool calls": ([ASKED, {**SAID, "tool_calls": [{"id": 1}]}], RowCode.TOOL_CALLS, '"tool_calls"'),
    "reasoning": ([ASKED, {**SAID, "reasoning_content": "hm"}], RowCode.UNSUPPORTED_FIELD, '"reasoning_content"'),
    "no content": ([ASKED, {"role": "assistant"}], RowCode.MISSING_CONTENT, '{"role": "assistant"'),
    "content null": ([{"content": None, "role": "user"}], RowCode.MISSING_CONTENT, '{"content": null'),
    "content number": ([{"role": "user", "content": 5}], RowCode.CONTENT_NOT_STRING, '"content": 5'),
    "content parts": ([{"role": "user", "content": [{"text": "x"}]}], RowCode.MULTIMODAL, '"content": ['),
    "no assistant": ([ASKED], RowCode.NO_ASSISTANT, '"messages"'),
    "only unlearnt": ([ASKED, {**SAID, "weight": 0}], RowCode.NO_ASSISTANT, '"messages"'),
    "bad weight": ([ASKED, {**SAID, "weight": 0.5}], RowCode.BAD_WEIGHT, '"weight"'),
    "empty answer": ([ASKED, {**SAID, "content": ""}], RowCode.EMPTY_ANSWER, '"content": ""'),
    "blank answer": ([ASKED, {**SAID, "content": " \n"}], RowCode.EMPTY_ANSWER, '"content": " '),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_by_code_and_column(name: str) -> None:
    raw, code, column = BAD[name]
    found = parse_line(raw)
    assert isinstance(found, RowProblem)
    assert (found.code, found.column) == (code, column), found


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_is_named_by_code_and_column(name: str) -> None:
    messages, code, place = BAD_MESSAGES[name]
    raw = line({"messages": messages})
    found = parse_line(raw)
    assert isinstance(found, RowProblem)
    assert found.code is code, found
    assert raw.decode()[found.column - 1 :].startswith(place), found


def test_every_code_tells_what_to_do() -> None:
    assert set(FIXES) == set(RowCode)


@pytest.mark.parametrize("name", BAD)
def test_a_message_is_one_short_printable_line(name: str) -> None:
    found = parse_line(BAD[name][0])
    assert isinstance(found, RowProblem)
    assert found.message.isprintable()
    assert len(found.message) < 200


def test_escapes_in_a_role_do_not_reach_the_message() -> None:
    found = parse_line(b'{"messages":[{"role":"\\u001b[31m\\u202e","content":"x"}]}')
    assert isinstance(found, RowProblem)
    assert found.message.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "text", "prompt", "completion", "from"]), inner
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(json_values)
def test_any_json_value_gives_a_row_or_a_problem_inside_the_line(value: Any) -> None:
    raw = json.dumps(value).encode()
    found = parse_line(raw)
    if isinstance(found, RowProblem):
        assert 1 <= found.column <= len(raw)
        assert to_row(value) is None or found.code is RowCode.LONE_SURROGATE
    else:
        assert to_row(value) == found


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_row_or_a_problem(raw: bytes) -> None:
    found = parse_line(raw)
    assert not isinstance(found, RowProblem) or found.column >= 1


def test_rows_that_ask_the_same_have_the_same_key_in_every_format() -> None:
    answers = [{"messages": [ASKED, {**SAID, "content": said}]} for said in ("a", "b")]
    answers.append({"instruction": "q", "output": "c"})
    keys = set()
    for value in answers:
        row = parse_line(line(value))
        assert not isinstance(row, RowProblem)
        keys.add(prompt_key(row))
    assert len(keys) == 1
