"""A header that cannot be true is refused, and nothing is allocated on its word."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from overnight.disk import builtin
from overnight.disk.tensor_headers import read_header


def write(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: object, end: object, shape: object = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_real_file_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    from safetensors import safe_open

    builtin.make_tiny(tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    found = read_header(path)
    with safe_open(path, framework="numpy") as file:
        assert {name: list(tensor.shape) for name, tensor in found.items()} == {
            name: file.get_slice(name).get_shape()
            for name in file.keys()  # noqa: SIM118
        }


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{not json", b""),
        (b"[" * 100_000, b""),
        ([1], b""),
        ({"a": 5}, b""),
        ({"a": {"dtype": "F32"}}, b""),
        ({"a": entry(0, 8)}, b""),  # outside the file
        ({"a": entry(-8, 0)}, b"x" * 8),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"x" * 12),  # overlapping
        ({"a": entry(0, 8), "b": entry(12, 20)}, b"x" * 20),  # a gap
        ({"a": entry(0, 8)}, b"x" * 9),  # something behind it
        ({"a": entry(0, 8, (3,))}, b"x" * 8),  # the shape needs more
        ({"a": entry(0, 8, (2**62, 2**62))}, b"x" * 8),
        ({"a": entry(0, 8, "xy")}, b"x" * 8),
        ({"a": entry(0, True)}, b"x" * 8),
        ({"a": entry(0, 8.0)}, b"x" * 8),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path: Path, header: object, data: bytes) -> None:
    with pytest.raises(ValueError):
        read_header(write(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 1])
def test_a_length_is_never_believed(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 8)}, b"x" * 8, length=length)
    tracemalloc.start()
    with pytest.raises(ValueError):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_empty_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="header"):
        read_header(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_header(tmp_path / "pipe")
