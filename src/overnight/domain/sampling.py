"""Tokens of a data file: all rows counted where they are few, else rows spread evenly over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from overnight.domain.dataset import TokenFigures
from overnight.domain.encoding import Encoder, Supervise, TokenCounts
from overnight.domain.rows import Row, RowProblem, parse_line

EXACT_BYTES = 4 << 20
"""Up to so many bytes of rows, all of them are counted."""

SAMPLE_ROWS = 2048
SAMPLE_BYTES = 2 << 20
SAMPLE_ROWS_AT_LEAST = 32

LINES_NAMED = 100


@dataclass(slots=True)
class RowSample:
    """Rows with their line numbers: every one, or from some size on every second, fourth, ... one."""

    stride: int = 1
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    num_bytes: int = 0
    num_seen: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether every row is in it."""
        return self.stride == 1

    def add(self, numbers: Sequence[int], lines: list[bytes]) -> None:
        """Take the next rows of the file."""
        first = -self.num_seen % self.stride
        self.num_seen += len(lines)
        chosen = lines[first :: self.stride] if self.stride > 1 else lines
        if not chosen:
            return
        self.lines += chosen
        self.numbers += numbers[first :: self.stride]
        self.num_bytes += sum(map(len, chosen))
        while self._is_too_large():
            self.stride *= 2
            self.lines, self.numbers = self.lines[::2], self.numbers[::2]
            self.num_bytes = sum(map(len, self.lines))

    def _is_too_large(self) -> bool:
        if self.is_whole:
            return self.num_bytes > EXACT_BYTES and len(self.lines) > SAMPLE_ROWS_AT_LEAST
        is_over = len(self.lines) > SAMPLE_ROWS or self.num_bytes > SAMPLE_BYTES
        return is_over and len(self.lines) > SAMPLE_ROWS_AT_LEAST


def count_tokens(sample: RowSample, encoder: Encoder, *, max_length: int, supervise: Supervise) -> TokenFigures:
    """Encode the sample and draw up its figures. Raises DataError where the chat template does not take a row."""
    rows: list[Row] = []
    for line in sample.lines:
        row = parse_line(line)
        assert not isinstance(row, RowProblem), "only accepted rows are sampled"
        rows.append(row)
    sums = TokenCounts()
    lengths: list[int] = []
    dropped: list[int] = []
    num_typed = num_forged = 0
    for number, encoded in zip(
        sample.numbers, encoder.encode_all(rows, max_length=max_length, supervise=supervise), strict=True
    ):
        sums += encoded.counts
        lengths.append(encoded.counts.total)
        num_typed += encoded.num_typed_markers > 0
        num_forged += encoded.num_forged > 0
        if encoded.is_dropped:
            dropped.append(number)
    lengths.sort()
    scale = sample.num_seen / len(lengths)

    def scaled(count: int) -> int:
        return round(count * scale)

    parts = {name: scaled(getattr(sums, name)) for name in ("supervised", "masked", "truncated", "dropped")}
    return TokenFigures(
        exact=sample.is_whole,
        total=sum(parts.values()),
        max=lengths[-1],
        p95=lengths[-(-len(lengths) * 95 // 100) - 1],
        over_limit=scaled(sum(length > max_length for length in lengths)),
        rows_counted=len(lengths),
        rows_dropped=scaled(len(dropped)),
        dropped_lines=tuple(dropped[:LINES_NAMED]) if sample.is_whole else (),
        rows_with_typed_markers=scaled(num_typed),
        rows_with_forged_markers=scaled(num_forged),
        **parts,
    )
