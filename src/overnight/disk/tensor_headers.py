"""What a safetensors file says of its tensors, read by its own rules; no size is believed before it is checked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overnight.disk import files

HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit."""

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element; a kind that is not listed is not measured."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it."""

    kind: str
    shape: tuple[int, ...]
    begin: int = field(default=0, compare=False)  # bytes from the start of the file
    end: int = field(default=0, compare=False)


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name. Raises OSError, or ValueError where the header cannot be true."""
    with files.open_regular(path, follow_links=True) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(HEADER_LIMIT_BYTES, size - 8):
            raise ValueError(f"its header claims {length} bytes, the file has {size}")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    return _tensors(header, first=8 + length, data_bytes=size - 8 - length)


def _tensors(header: dict[str, Any], *, first: int, data_bytes: int) -> dict[str, Tensor]:
    """Check that the tensors fill the file, each byte once, and have the sizes that their shapes say."""
    found: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for name, item in header.items():
        try:
            begin, end = item["data_offsets"]
            tensor = Tensor(str(item["dtype"]), tuple(item["shape"]), begin=first + begin, end=first + end)
            is_sound = all(type(number) is int and number >= 0 for number in (begin, end, *tensor.shape))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its header is damaged at '{name[:80]}'") from error
        if not is_sound or not begin <= end <= data_bytes:
            raise ValueError(f"'{name[:80]}' lies outside the file")
        width, count = WIDTHS.get(tensor.kind), 1
        for number in tensor.shape:
            count *= number
        if width is not None and width * count != end - begin:
            raise ValueError(f"'{name[:80]}' has {end - begin} bytes, its shape needs {width * count}")
        found[name] = tensor
        spans.append((begin, end))
    place = 0
    for begin, end in sorted(spans):
        if begin != place:
            raise ValueError("its tensors overlap, or leave a gap")
        place = end
    if place != data_bytes:
        raise ValueError(f"it has {data_bytes - place} bytes that belong to no tensor")
    return found
