"""The telling parts of a log of any size, in bounded memory: its beginning, its end, and where trouble is named.

A cause may stand far above the end, where other processes went on talking. So the whole file is searched for a few
words that every grave failure brings along, as fast as memory allows, and only what stands around them is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 128 << 10
TAIL_BYTES = 1 << 20
AROUND_BYTES = 12 << 10
LINE_BYTES = 16 << 10
"""Kept of a longer line: its first and its last half as much."""

FIRST_KEPT = 4
LAST_KEPT = 4

ANCHORS = (
    b"Traceback (most recent call last)",
    b"terminate called after throwing",
    b"Watchdog caught collective operation timeout",
    b"ut of memory: Killed process",
    b"NVRM: Xid (PCI:",
)
"""Long words, for the longer, the faster they are searched; what is told without any of them is told at the end."""

_OVERLAP = max(map(len, ANCHORS)) - 1

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a log and where they stand."""

    offset: int
    first_line: int  # counted from 1
    data: bytes


@dataclass(slots=True)
class _Hits:
    """What is kept around the places where one word was found."""

    first: list[Part] = field(default_factory=list)
    last: deque[Part] = field(default_factory=lambda: deque(maxlen=LAST_KEPT))


@dataclass(slots=True)
class _Chunk:
    offset: int
    first_line: int
    data: bytes


class CompressedError(ValueError):
    """A compressed file, which is not unpacked; its argument names how."""


def excerpt(reader: IO[bytes]) -> list[tuple[int, str]]:
    """Return the telling lines of a log, each with its number. Reads to the end. Raises CompressedError."""
    scan = _Scan()
    for chunk in _chunks(reader):
        name = next((name for magic, name in COMPRESSED.items() if not scan.size and chunk.startswith(magic)), None)
        if name is not None:
            raise CompressedError(name)
        scan.take(chunk)
    scan.finish()
    return [line for part in _joined(scan.parts()) for line in _lines(part)]


def _chunks(reader: IO[bytes]) -> Iterator[bytes]:
    """Read chunks of full size, also from a pipe."""
    while True:
        held, num_held = list[bytes](), 0
        while num_held < CHUNK_BYTES:
            data = reader.read(CHUNK_BYTES - num_held)
            if not data:
                break
            held.append(data)
            num_held += len(data)
        if not held:
            return
        yield held[0] if len(held) == 1 else b"".join(held)


class _Scan:
    """One pass over a log; a chunk is searched once its neighbour is there."""

    def __init__(self) -> None:
        self.head: Part | None = None
        self.before = _Chunk(0, 1, b"")
        self.current: _Chunk | None = None
        self.hits = {anchor: _Hits() for anchor in ANCHORS}
        self.size = 0
        self.next_line = 1

    def take(self, data: bytes) -> None:
        """Take the next chunk."""
        if self.head is None:
            self.head = Part(0, 1, data if len(data) <= HEAD_BYTES else _to_line_end(data[:HEAD_BYTES]))
        chunk = _Chunk(self.size, self.next_line, data)
        if self.current is not None:
            self._search(self.current, data)
            self.before = self.current
        self.current = chunk
        self.size += len(data)
        self.next_line += data.count(b"\n")

    def finish(self) -> None:
        """Search the last chunk."""
        if self.current is not None:
            self._search(self.current, b"")

    def parts(self) -> list[Part]:
        """Return everything kept, in no order."""
        if self.head is None or self.current is None:
            return []
        found = [self.head]
        for hits in self.hits.values():
            found += [*hits.first, *hits.last]
        return [*found, self._tail()]

    def _tail(self) -> Part:
        assert self.current is not None
        both = self.before.data[-TAIL_BYTES:] + self.current.data
        data = both[-TAIL_BYTES:]
        start = self.size - len(data)
        first_line = self.next_line - data.count(b"\n")
        return _from_line_start(Part(start, first_line, data)) if start else Part(0, 1, data)

    def _search(self, chunk: _Chunk, after: bytes) -> None:
        """Keep what stands around each word in a chunk; its last bytes are searched together with the next ones."""
        edge = chunk.data[-_OVERLAP:] + after[:_OVERLAP]
        for anchor, hits in self.hits.items():
            start, end = 0, len(chunk.data)
            while len(hits.first) < FIRST_KEPT:
                at = chunk.data.find(anchor, start)
                if at < 0:
                    break
                hits.first.append(self._around(chunk, at, after))
                start = at + AROUND_BYTES
            else:
                at = chunk.data.rfind(anchor, min(start, end))
                if at >= 0:
                    hits.last.append(self._around(chunk, at, after))
            if after and anchor in edge:
                hits.last.append(self._around(chunk, end, after))

    def _around(self, chunk: _Chunk, at: int, after: bytes) -> Part:
        start, end = max(at - AROUND_BYTES, 0), at + 2 * AROUND_BYTES
        data = chunk.data[start:end]
        if end > len(chunk.data):
            data += after[: end - len(chunk.data)]
        first_line = chunk.first_line + chunk.data.count(b"\n", 0, start)
        data = _to_line_end(data)
        if at < AROUND_BYTES and self.before.data:
            prefix = self.before.data[at - AROUND_BYTES :]
            part = Part(chunk.offset - len(prefix), first_line - prefix.count(b"\n"), prefix + data)
        else:
            part = Part(chunk.offset + start, first_line, data)
        return _from_line_start(part) if part.offset else part


def _to_line_end(data: bytes) -> bytes:
    """Return data without the line that is cut off at its end; a very long line stays as it is."""
    end = data.rfind(b"\n", len(data) - AROUND_BYTES // 2 if len(data) > AROUND_BYTES else len(data))
    return data if end < 0 else data[:end]


def _from_line_start(part: Part) -> Part:
    """Cut a part to where its first whole line begins; a line longer than what is kept stays as it is."""
    end = part.data.find(b"\n", 0, AROUND_BYTES // 2)
    if end < 0:
        return part
    return Part(part.offset + end + 1, part.first_line + 1, part.data[end + 1 :])


def _joined(parts: list[Part]) -> list[Part]:
    """Return parts in order, what overlaps only once, what touches as one."""
    joined: list[Part] = []
    for part in sorted(parts, key=lambda one: (one.offset, -len(one.data))):
        if not joined:
            joined.append(part)
            continue
        last = joined[-1]
        overlap = last.offset + len(last.data) - part.offset
        if overlap < 0:
            joined.append(part)
        elif overlap < len(part.data):
            joined[-1] = Part(last.offset, last.first_line, last.data + part.data[overlap:])
    return joined


def _lines(part: Part) -> Iterator[tuple[int, str]]:
    """Yield a part's lines; zero bytes go, so that UTF-16 of plain letters can be read."""
    for number, line in enumerate(part.data.split(b"\n"), part.first_line):
        if len(line) > LINE_BYTES:
            line = line[: LINE_BYTES // 2] + b"\r" + line[-LINE_BYTES // 2 :]
        yield number, line.replace(b"\0", b"").decode("utf-8", errors="replace")
