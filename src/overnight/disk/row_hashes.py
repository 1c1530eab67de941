"""Row fingerprints: 64-bit hashes, sorted, in bounded memory whatever the number of rows.

Up to a limit they stay in memory. Beyond it, sorted runs go to an unnamed temporary file and are merged by ranges of
values, each of which fits in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import xxhash

from overnight.disk import files

RUN = 4_000_000
"""Fingerprints held in memory at a time (32 MB)."""

Fingerprints = npt.NDArray[np.uint64]


def of_lines(lines: list[bytes]) -> Fingerprints:
    """Return the fingerprint of each line."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, lines), dtype=np.uint64, count=len(lines))


class Sorter:
    """Takes fingerprints in any order and gives them back sorted."""

    def __init__(self, scratch: Path | None = None, *, run: int = RUN) -> None:
        """``scratch``: a folder for what does not fit in memory; None takes the system's."""
        self._scratch = scratch
        self._run = run
        self._held: list[Fingerprints] = []
        self._num_held = 0
        self._file: IO[bytes] | None = None
        self._runs: list[int] = []  # lengths
        self.total = 0

    def add(self, fingerprints: Fingerprints) -> None:
        """Take some more."""
        self._held.append(fingerprints)
        self._num_held += len(fingerprints)
        self.total += len(fingerprints)
        if self._num_held >= self._run:
            self._spill()

    def _gathered(self) -> Fingerprints:
        held = np.concatenate(self._held) if self._held else np.empty(0, dtype=np.uint64)
        self._held, self._num_held = [], 0
        held.sort()
        return held

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - closed by close()
        held = self._gathered()
        self._runs.append(len(held))
        self._file.write(held.tobytes())

    def sorted_parts(self) -> Iterator[Fingerprints]:
        """Yield everything in order, in parts that follow each other; equal ones are never parted. Call it once."""
        if self._file is None:
            yield self._gathered()
            return
        if self._num_held:
            self._spill()
        self._file.flush()
        runs = self._read_runs(self._file)
        num_parts = -(-self.total // self._run)
        places = [0] * len(runs)
        for part in range(1, num_parts + 1):
            border = part * 2**64 // num_parts
            ends = [len(run) if border == 2**64 else int(np.searchsorted(run, np.uint64(border))) for run in runs]
            merged = np.concatenate([run[place:end] for run, place, end in zip(runs, places, ends, strict=True)])
            merged.sort()
            places = ends
            yield merged

    def _read_runs(self, file: IO[bytes]) -> list[Fingerprints]:
        """Return the runs as views of the temporary file, which no other process can reach."""
        views: list[Fingerprints] = []
        place = 0
        for length in self._runs:
            views.append(np.memmap(file, dtype=np.uint64, mode="r", offset=place, shape=(length,)))
            place += length * 8
        return views

    def close(self) -> None:
        """Let the temporary file go."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._held = []


@contextmanager
def npy_writer(path: Path, length: int) -> Iterator[Callable[[Fingerprints], object]]:
    """Write a .npy file of a known length part by part, without ever mapping it.

    It is not synced: what a power cut takes away is a count of rows trained earlier, and nothing else.
    """
    with files.open_new(path, sync=False) as file:
        header = {"descr": "<u8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda part: file.write(part.astype("<u8", copy=False).tobytes())


def opened(paths: Iterable[Path]) -> list[Fingerprints]:
    """Return stored fingerprints, mapped and not read; files that are missing or damaged are passed over."""
    found: list[Fingerprints] = []
    for path in paths:
        try:
            stored: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        if stored.dtype == np.uint64 and stored.ndim == 1 and len(stored):
            found.append(stored)
    return found


def count_known(part: Fingerprints, stored: list[Fingerprints]) -> int:
    """Return how many of a sorted part stand in any of the stored (sorted) ones."""
    if not len(part):
        return 0
    known = np.zeros(len(part), dtype=bool)
    for others in stored:
        first, last = np.searchsorted(others, part[0]), np.searchsorted(others, part[-1], side="right")
        near = np.asarray(others[first:last])
        if len(near):
            places = np.searchsorted(near, part)
            known |= near[np.minimum(places, len(near) - 1)] == part
    return int(known.sum())


def count_distinct(part: Fingerprints) -> int:
    """Return how many different ones a sorted part holds."""
    return int(np.count_nonzero(part[1:] != part[:-1])) + 1 if len(part) else 0
