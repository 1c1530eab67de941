"""A data file read in blocks of whole lines; a line over the limit is passed over without being held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from overnight.domain.dataset import FileCode

BLOCK_BYTES = 256 << 10

LINE_LIMIT = 16 << 20
"""Bytes of one line."""

_BOM = b"\xef\xbb\xbf"
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf": "7z",
    b"PAR1": "parquet",
}


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each ended by one line feed (a carriage return before it is gone); blank ones included."""

    first_line: int  # counted from 1
    data: bytes


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line over the limit."""

    line: int
    limit: int  # bytes


@dataclass(frozen=True, slots=True)
class NoText:
    """The file as a whole is no text in UTF-8; no line of it follows."""

    code: FileCode
    message: str


def read_blocks(
    reader: IO[bytes], *, line_limit: int = LINE_LIMIT, on_bytes: Callable[[bytes], object] = len
) -> Iterator[Block | LongLine | NoText]:
    """Yield what a file holds, in order. ``on_bytes`` is given every byte as it is read."""
    line = 1
    held: list[bytes] = []  # the beginning of a line whose end is not read yet
    num_held = 0
    is_skipping = False
    for number, chunk in enumerate(_chunks(reader, min(BLOCK_BYTES, line_limit), on_bytes)):
        if number == 0:
            fault = _no_text(chunk)
            if fault is not None:
                yield fault
                for _ in _chunks(reader, BLOCK_BYTES, on_bytes):
                    pass  # read to the end, for the hash
                return
            chunk = chunk.removeprefix(_BOM)
        if is_skipping:
            end = chunk.find(b"\n")
            if end < 0:
                continue
            yield LongLine(line, line_limit)
            line, is_skipping, chunk = line + 1, False, chunk[end + 1 :]
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            held.append(chunk)
            num_held += len(chunk)
            if num_held > line_limit:
                held, num_held, is_skipping = [], 0, True
            continue
        data = b"".join((*held, chunk[:cut]))
        held, num_held = [chunk[cut:]], len(chunk) - cut
        end = data.find(b"\n")
        if end > line_limit:
            yield LongLine(line, line_limit)
            line, data = line + 1, data[end + 1 :]
        if data:
            yield _block(line, data)
            line += data.count(b"\n")
    if is_skipping or num_held > line_limit:
        yield LongLine(line, line_limit)
    elif num_held:
        yield _block(line, b"".join((*held, b"\n")))


def _block(line: int, data: bytes) -> Block:
    return Block(line, data.replace(b"\r\n", b"\n") if b"\r" in data else data)


def _chunks(reader: IO[bytes], size: int, on_bytes: Callable[[bytes], object]) -> Iterator[bytes]:
    while chunk := reader.read(size):
        on_bytes(chunk)
        yield chunk


def _no_text(head: bytes) -> NoText | None:
    """Judge the first bytes of a file."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return NoText(FileCode.NOT_UTF8, "the file is UTF-16 or UTF-32, not UTF-8")
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return NoText(FileCode.COMPRESSED, f"the file is {name} data; it is not unpacked")
    start = head[:4]
    if b"\x00" in start:
        if start.strip(b"\x00"):
            return NoText(FileCode.NOT_UTF8, "the file is UTF-16 or UTF-32 without a mark, not UTF-8")
        return NoText(FileCode.BINARY, "the file begins with zero bytes: it is no text, or was lost in a crash")
    first = head.removeprefix(_BOM).lstrip().partition(b"\n")[0].rstrip()
    if first == b"[" or (first.startswith(b"[{") and not first.endswith(b"]")):
        return NoText(FileCode.JSON_ARRAY, "the file is one JSON array, not one object a line")
    return None
