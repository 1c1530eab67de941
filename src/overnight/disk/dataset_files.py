"""A dataset where it lies: its files, and whether they are what its name says; nothing is read into numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overnight.disk import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A stored dataset."""

    id: str
    folder: Path

    @property
    def rows_file(self) -> Path:
        """The accepted lines."""
        return self.folder / "rows.jsonl"

    @property
    def hashes_file(self) -> Path:
        """Sorted hashes of the rows."""
        return self.folder / "fingerprints.npy"


def find(datasets: Path, identity: str) -> Dataset:
    """Return where a dataset is stored (which does not say that it is there)."""
    return Dataset(id=identity, folder=datasets / identity)


def is_whole(dataset: Dataset) -> bool:
    """Return whether a dataset's rows are there and are what its id says."""
    try:
        return files.sha256_of(dataset.rows_file) == dataset.id
    except OSError:
        return False
