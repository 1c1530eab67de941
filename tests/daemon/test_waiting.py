"""The bell: whoever rings it late writes into nothing else."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from overnight.daemon import waiting


def test_a_ring_that_is_overtaken_by_the_close_never_lands_in_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it is closed and the write another file may get the pipe's number."""
    bell = waiting.Bell()
    is_ringing, may_write = threading.Event(), threading.Event()
    write = os.write

    def slow_write(descriptor: int, data: bytes) -> int:
        if data == b"!":
            is_ringing.set()
            assert may_write.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(waiting.os, "write", slow_write)
    ringer, closer = threading.Thread(target=bell.ring), threading.Thread(target=bell.close)
    ringer.start()
    assert is_ringing.wait(60)
    closer.start()
    closer.join(0.2)  # where the close does not wait for the ring it is through by now
    with contextlib.ExitStack() as victims:
        for number in range(4):
            victims.enter_context(open(tmp_path / str(number), "wb"))
        may_write.set()
        ringer.join(60)
        closer.join(60)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b""] * 4


def test_closing_twice_closes_nothing_of_somebody_else(tmp_path: Path) -> None:
    bell = waiting.Bell()
    bell.close()
    with open(tmp_path / "a", "wb") as first, open(tmp_path / "b", "wb") as second:
        bell.close()
        bell.ring()
        first.write(b"1")
        second.write(b"2")
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"12"
