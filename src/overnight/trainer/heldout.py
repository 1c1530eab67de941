"""Rows that are never trained: which they are, and how they are read again for the judge.

A row belongs to a set by the hash of its bytes: the ``share`` of all hashes that are smallest. So the rows of a set are
the same for ever. A later job with a smaller share, or none, that holds the same row is told to leave it out too.

In ``spec.held_out`` the loop names every set that there ever was, oldest first: ``id``, ``dataset``, ``share``,
``examples``, ``supervise``, ``file``, and whether it ``is_judged`` after this job and ``is_own``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import xxhash

from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.domain.encoding import Encoded, Encoder
from overnight.domain.errors import DataError
from overnight.domain.held_out import is_held_out as is_held_out
from overnight.domain.rows import RowProblem, parse_line

CHUNK_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A set as the trainer is told of it."""

    id: str
    dataset: str
    share: float
    examples: int
    supervise: Literal["assistant", "completion", "all"]
    file: str
    is_judged: bool
    is_own: bool


def tasks(spec: Spec) -> list[Task]:
    """Return every set that was ever held out, oldest first."""
    names = Task.__dataclass_fields__
    return [Task(**{name: value for name, value in told.items() if name in names}) for told in spec.held_out]  # type: ignore[arg-type]


class Earlier:
    """Rows that earlier jobs held out, as far as the share of this job does not hold them out anyway."""

    def __init__(self, spec: Spec, *, share: float, on_block: Callable[[], None]) -> None:
        self.ids = sorted(one.id for one in tasks(spec) if one.share > share)
        self._hashes: set[int] = set()
        for one in tasks(spec):
            if one.id not in self.ids:
                continue
            bounds = share * 2**64, one.share * 2**64
            for chunk in _chunks(rows_file(spec, one)):
                hashes = (xxhash.xxh3_64_intdigest(line) for line in chunk)
                self._hashes.update(value for value in hashes if bounds[0] <= value < bounds[1])
                on_block()

    def hold(self, line: bytes) -> bool:
        """Return whether an earlier job held out this very row."""
        return bool(self._hashes) and xxhash.xxh3_64_intdigest(line) in self._hashes


def rows_file(spec: Spec, task: Task) -> Path:
    """Return where the rows lie that a set is a share of."""
    return Path(spec.dataset) if task.dataset == spec.dataset_id else Layout(Path(spec.workspace)).rows(task.dataset)


def rows_of(
    spec: Spec, task: Task, encoder: Encoder, *, max_length: int, on_block: Callable[[], None]
) -> list[dict[str, Any]]:
    """Return the encoded rows of a set that are judged. Raises OSError, and DataError where a row cannot be read."""
    return list(islice(_encoded(spec, task, encoder, max_length, on_block), task.examples))


def _encoded(
    spec: Spec, task: Task, encoder: Encoder, max_length: int, on_block: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    for chunk in _chunks(rows_file(spec, task)):
        on_block()
        lines = [line for line in chunk if is_held_out(line, task.share)]
        for item in _encode(lines, encoder, task, max_length):
            if not item.is_dropped:
                yield {"input_ids": item.input_ids, "labels": item.labels}


def _encode(lines: list[bytes], encoder: Encoder, task: Task, max_length: int) -> Iterator[Encoded]:
    rows = []
    for line in lines:
        row = parse_line(line)
        if isinstance(row, RowProblem):
            raise DataError(f"A held-out row of {task.file} cannot be read", found=row.message)
        rows.append(row)
    return encoder.encode_all(rows, max_length=max_length, supervise=task.supervise)


def _chunks(path: Path) -> Iterator[list[bytes]]:
    with open(path, "rb") as file:
        while lines := list(islice(file, CHUNK_ROWS)):
            yield [line.rstrip(b"\r\n") for line in lines]
