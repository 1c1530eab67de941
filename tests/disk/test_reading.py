"""Reading takes the memory of what is there, and stops at the limit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from overnight.disk import reading


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text('{"a": 1}')
    tracemalloc.start()
    try:
        assert reading.read_json(path) == {"a": 1}
        assert tracemalloc.get_traced_memory()[1] < 2 * reading.CHUNK_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, reading.CHUNK_BYTES, 3 * reading.CHUNK_BYTES + 7])
def test_the_whole_file_is_returned(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(index % 251 for index in range(size)))
    assert reading.read_bytes(path, limit=size) == path.read_bytes()
    if size:
        with pytest.raises(ValueError, match=f"longer than {size - 1} bytes"):
            reading.read_bytes(path, limit=size - 1)


def test_a_file_of_the_kernel_that_has_no_size_is_read_too() -> None:
    assert reading.read_bytes(Path("/proc/self/status"), limit=1 << 20).startswith(b"Name:")
