"""The quick way through a block never takes a line that the exact way refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overnight.domain.row_blocks import BlockJudge
from overnight.domain.rows import Chat, RowFormat, RowProblem, parse_line, prompt_key

VALUES: dict[RowFormat, Any] = {
    RowFormat.MESSAGES: {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    RowFormat.SHAREGPT: {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    RowFormat.PROMPT_COMPLETION: {"prompt": "p", "completion": "c"},
    RowFormat.TEXT: {"text": "t"},
    RowFormat.INSTRUCTION: {"instruction": "i", "input": "", "output": "o"},
    RowFormat.PREFERENCE: {"prompt": "p", "chosen": "c", "rejected": "r"},
}


def block_of(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("format_", VALUES)
def test_a_block_of_one_format_is_seen_at_once(format_: RowFormat) -> None:
    line = json.dumps(VALUES[format_]).encode()
    judged = BlockJudge().judge(block_of(line, line), 2)
    assert judged is not None
    row = parse_line(line)
    assert not isinstance(row, RowProblem)
    assert judged.formats == {format_: 2}
    assert judged.prompt_keys == [prompt_key(row)] * 2


def test_a_block_of_all_formats_with_other_keys_is_seen_too() -> None:
    lines = [json.dumps({"id": number, **value}).encode() for number, value in enumerate(VALUES.values())]
    judged = BlockJudge().judge(block_of(*lines), len(lines))
    assert judged is not None
    assert set(judged.formats) == set(VALUES)


SUSPICIOUS = [
    b'{"text":"a","text":"b"}',
    b'{"text":"a","t\\u0065xt":"b"}',
    b'{"text" : "a", "text": "b"}',
    b'{"x\\\\":1,"text":"a","text":"b"}',
    b'{"x\\"":1,"text":"a","text":"b"}',
    b'{"":1,"text":"a","text":"b"}',
    b'{"text":"a"} {"text":"b"}',
    b'{"text":"a"}{"text":"b"}',
    b'{"text":"a","n":NaN}',
    b'{"text":"a","n":1e999}',
    b'{"text":"a","n":' + b"9" * 101 + b"}",
    b'{"text":"a","n":-' + b"9" * 101 + b"}",
    b'{"text":"a","n":' + b"[" * 70 + b"]" * 70 + b"}",
    b'{"text":"\\ud800"}',
    b'{"text":"\xff"}',
    b'{"text":"a\x00"}',
    b'{"text":" "}',
    b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","role":"user"}]}',
    b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","tool_calls":[1]}]}',
    b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","weight":2}]}',
    b'{"messages":[{"role":"user","content":"q"}]}',
    b'{"messages":[]}',
    b'{"prompt":"p","completion":"c","text":"t"}',
]


@pytest.mark.parametrize("line", SUSPICIOUS, ids=[str(line[:60]) for line in SUSPICIOUS])
def test_what_is_refused_alone_is_refused_in_a_block(line: bytes) -> None:
    good = [json.dumps(VALUES[RowFormat.TEXT]).encode(), json.dumps(VALUES[RowFormat.MESSAGES]).encode()]
    assert isinstance(parse_line(line), RowProblem)
    for lines in ([line], [good[0], line], [line, good[1]], [good[0], line, good[1]]):
        assert BlockJudge().judge(block_of(*lines), len(lines)) is None


def test_a_row_over_two_lines_beside_two_rows_on_one_is_not_taken_for_three() -> None:
    text = b'{"text":"a"}{"text":"b"}\n{"text":\n"c"}\n'
    assert BlockJudge().judge(text, 3) is None
    chat = (
        b'{"text":"a"}{"text":"b"}\n{"messages":[{"role":"user","content":"q"},\n{"role":"assistant","content":"a"}]}\n'
    )
    assert BlockJudge().judge(chat, 3) is None


pieces = st.sampled_from(
    [b'"text"', b'"messages"', b'"role"', b'"content"', b'"a"', b'"user"', b'"assistant"', b":", b",", b"{", b"}", b"[",
     b"]", b" ", b"\t", b"\\", b'"', b"1", b"null", b"\\u0065", b'"x":1,', b"\r", b"e9"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = draw(st.sampled_from(list(VALUES.values())))
    extra = draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers() | st.none(), max_size=2))
    line = json.dumps({**extra, **value}, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(line)))
        end = draw(st.integers(start, min(len(line), start + 8)))
        line = line[:start] + draw(pieces) + line[end:]
    return line


@given(st.lists(mutated(), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
@example([b'{"text": "a" ,"text":"b"}'])
def test_whatever_a_block_holds_the_quick_way_agrees_with_the_exact_one(lines: list[bytes]) -> None:
    lines = [line for line in lines if line.strip()]
    if not lines:
        return
    judged = BlockJudge().judge(block_of(*lines), len(lines))
    if judged is None:
        return
    rows = [parse_line(line) for line in lines]
    assert not any(isinstance(row, RowProblem) for row in rows), rows
    formats: dict[RowFormat, int] = {}
    for row in rows:
        assert not isinstance(row, RowProblem)
        formats[row.format] = formats.get(row.format, 0) + 1
    assert judged.formats == formats
    assert judged.prompt_keys == [prompt_key(row) for row in rows if not isinstance(row, RowProblem)]
    assert judged.roles == {tuple(message.role for message in row.messages) for row in rows if isinstance(row, Chat)}
