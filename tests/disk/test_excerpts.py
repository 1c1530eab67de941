"""Logs of any size and shape: what is kept, with the right line numbers, in bounded memory."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Callable

import pytest

from overnight.disk import excerpts
from overnight.domain.attempt import FailureKind
from overnight.domain.crash_verdict import classify_log

CRASH = (
    b"Traceback (most recent call last):\n"
    b'  File "/home/me/train.py", line 3, in <module>\n'
    b"    main()\n"
    b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
)
PRATTLE = b"[rank5]: still polling the peer, nothing yet\n"
WIDE = 5 * excerpts.CHUNK_BYTES // 2


class Endless(io.RawIOBase):
    """Bytes made as they are read: parts of (times, data)."""

    def __init__(self, *parts: tuple[int, bytes]) -> None:
        self.made = (data for times, data in parts for _ in range(times))
        self.held = b""

    def read(self, size: int = -1) -> bytes:
        while len(self.held) < size:
            data = next(self.made, b"")
            if not data:
                break
            self.held += data
        given, self.held = self.held[:size], self.held[size:]
        return given


def kept(data: bytes) -> list[tuple[int, str]]:
    return excerpts.excerpt(io.BytesIO(data))


def kind(lines: list[tuple[int, str]]) -> FailureKind:
    return classify_log(lines).kind


def test_a_small_log_is_kept_whole() -> None:
    assert kept(b"one\ntwo\nthree") == [(1, "one"), (2, "two"), (3, "three")]
    assert kept(b"") == []


def test_a_cause_far_above_the_end_is_found_with_its_line() -> None:
    before = WIDE // len(PRATTLE)
    lines = kept(PRATTLE * before + CRASH + PRATTLE * before)
    assert len(lines) < before
    verdict = classify_log(lines)
    assert verdict.kind is FailureKind.CUDA_OOM
    assert verdict.evidence[0].line == before + 4


@pytest.mark.parametrize("shift", range(0, 160, 30))
def test_a_cause_across_the_border_of_two_chunks_is_found(shift: int) -> None:
    lead = (PRATTLE * (WIDE // len(PRATTLE)))[: 2 * excerpts.CHUNK_BYTES - shift - 1] + b"\n"
    lines = kept(lead + CRASH + PRATTLE * (WIDE // len(PRATTLE)))
    assert kind(lines) is FailureKind.CUDA_OOM


def test_every_kept_line_has_its_own_number_and_text() -> None:
    rows = [
        b"row %d" % number if number % 9000 else b"CRASH %d\n" % number + CRASH.rstrip() for number in range(1, 400_000)
    ]
    data = b"\n".join(rows)
    whole = data.decode().split("\n")
    lines = kept(data)
    assert all(whole[number - 1] == text for number, text in lines)
    assert [number for number, _ in lines] == sorted({number for number, _ in lines})


@pytest.mark.parametrize(
    "junk",
    [
        lambda: (1, bytes(range(256)) * 400),
        lambda: (1, b"x" * (5 << 20)),
        lambda: (1, b"".join(b"\r %3d%%|####   | 17/90000 [00:01<09:99, %dit/s]" % (17, n) for n in range(90_000))),
        lambda: (1, b"\x00" * (3 << 20)),
        lambda: (20_000, b"\x1b[32mINFO\x1b[0m all is \x1b[1mwell\x1b[0m\n"),
        lambda: (1, b"\xff\xfe\x80" * 500_000),
    ],
    ids=["binary", "one long line", "progress bar", "zero bytes", "colours", "no UTF-8"],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_the_cause_is_found_beside_junk(junk: Callable[[], tuple[int, bytes]], place: str) -> None:
    times, data = junk()
    parts = [data * times, b"\n", CRASH] if place == "before" else [CRASH, data * times]
    assert kind(kept(b"".join(parts))) is FailureKind.CUDA_OOM


def test_a_log_in_utf_16_can_be_read() -> None:
    assert kind(kept(CRASH.decode().encode("utf-16"))) is FailureKind.CUDA_OOM


def test_memory_is_bounded_whatever_the_size_and_the_length_of_lines() -> None:
    reader = Endless(
        (40, b"x" * (1 << 20)),
        (1, b"\n" + CRASH),
        (9, PRATTLE * (excerpts.CHUNK_BYTES // len(PRATTLE))),
        (40, b"\x00\r" * (1 << 19)),
    )
    tracemalloc.start()
    try:
        lines = excerpts.excerpt(reader)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
    assert kind(lines) is FailureKind.CUDA_OOM


def test_a_flood_of_the_same_error_keeps_the_first_and_the_last() -> None:
    error = b"Traceback (most recent call last):\nValueError: number %d\n" + b"-" * 200 + b"\n"
    lines = kept(b"".join(error % number for number in range(40_000)))
    told = [text for _, text in lines if text.startswith("ValueError")]
    assert (told[0], told[-1]) == ("ValueError: number 0", "ValueError: number 39999")
    assert len(lines) < 40_000


@pytest.mark.parametrize(
    ("magic", "name"), [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip"), (b"\xfd7zXZ\x00", "xz")]
)
def test_a_compressed_log_is_refused_by_name(magic: bytes, name: str) -> None:
    with pytest.raises(excerpts.CompressedError, match=name):
        kept(magic + b"\x00" * 100)


def test_a_gigabyte_fits_into_ten_seconds() -> None:
    """A tenth of it is read, in a tenth of the time, counted on the processor: neighbours do not disturb it."""
    step = b"{'loss': 2.31, 'grad_norm': 1.91, 'learning_rate': 4e-05, 'epoch': 0.31} error 0.12 no signal lost\n"
    reader = io.BytesIO(step * (100_000_000 // len(step)) + CRASH)
    began = time.process_time()
    lines = excerpts.excerpt(reader)
    verdict = classify_log(lines)
    assert time.process_time() - began < 1.0
    assert verdict.kind is FailureKind.CUDA_OOM
