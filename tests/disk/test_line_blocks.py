"""A file read in blocks gives the same lines, wherever the blocks end."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.disk.line_blocks import Block, LongLine, read_blocks


def read(content: bytes, line_limit: int) -> list[tuple[int, bytes | None]]:
    """Return (number, line) of each line; None for one over the limit."""
    found: list[tuple[int, bytes | None]] = []
    seen: list[bytes] = []
    for item in read_blocks(io.BytesIO(content), line_limit=line_limit, on_bytes=seen.append):
        if isinstance(item, Block):
            assert item.data.endswith(b"\n")
            found += enumerate(item.data.split(b"\n")[:-1], start=item.first_line)
        else:
            assert isinstance(item, LongLine)
            found.append((item.line, None))
    assert b"".join(seen) == content
    return found


lines = st.lists(st.integers(0, 60).map(lambda size: b"x" * size), max_size=30)


@settings(deadline=None)
@given(lines, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(1, 50))
def test_every_line_is_given_once_with_its_number(lines: list[bytes], end: bytes, ends: bool, limit: int) -> None:
    content = end.join(lines) + (end if ends and lines else b"")
    expected = lines if ends or not lines or lines[-1] else lines[:-1]
    found = read(content, limit)
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    for (_, line), original in zip(found, expected, strict=True):
        if line is None:
            assert len(original) + len(end) > limit
        else:
            assert line == original
            assert len(line) <= limit + len(end)
