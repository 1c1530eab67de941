"""Data files validated as streams, and datasets stored by their content.

::

    .overnight/datasets/<SHA-256 of rows.jsonl>/rows.jsonl         the accepted lines, verbatim, one line feed each
                                                report.json        what validation found
                                                fingerprints.npy   sorted 64-bit hashes of the rows
    .overnight/datasets/.incoming-*/                               being written; of no meaning after a crash
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from overnight.disk import dataset_files, files
from overnight.disk.scanning import Progress, Rules, Scan
from overnight.domain.dataset import Validation
from overnight.domain.encoding import Encoder
from overnight.domain.errors import DataError
from overnight.domain.rows import Row, RowProblem, parse_line


def rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a stored rows.jsonl in their order. Raises DataError where it is not what was stored."""
    with files.open_regular(path, follow_links=False) as reader:
        for number, line in enumerate(reader, start=1):
            row = parse_line(line.removesuffix(b"\n"))
            if isinstance(row, RowProblem):
                raise DataError(
                    "A stored dataset is damaged",
                    found=f"{path}, line {number}: {row.message}",
                    expected="the rows that were accepted",
                    fix="drop the data file again",
                    code="dataset_damaged",
                )
            yield row


def validate(
    source: Path,
    *,
    rules: Rules,
    encoder: Encoder | None,
    trained: Sequence[Path] = (),
    progress: Progress | None = None,
    follow_links: bool = True,
) -> Validation:
    """Judge a data file and keep nothing. ``trained``: fingerprint files of the datasets trained before.

    Raises OSError where it cannot be read; EINVAL for what is no regular file.
    """
    with files.open_regular(source, follow_links=follow_links) as reader:
        scan = Scan(rules, encoder, sink=None, scratch=None)
        with contextlib.closing(scan):
            scan.read(reader, progress)
            return scan.finish(trained, None)


def store(
    source: Path,
    datasets: Path,
    *,
    rules: Rules,
    encoder: Encoder | None,
    trained: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Validation:
    """Judge a data file and store its accepted rows, durably; ``Validation.dataset`` is the id, None if rejected.

    The same rows are stored once. Raises OSError where the source cannot be read, DiskError where nothing can be
    written; nothing stays behind then.
    """
    reader = files.open_regular(source, follow_links=False)
    staging = datasets / f".incoming-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        staging.mkdir()
        with reader, files.open_new(staging / "rows.jsonl") as writer:
            scan = Scan(rules, encoder, sink=writer, scratch=staging)
            with contextlib.closing(scan):
                scan.read(reader, progress)
                validation = scan.finish(trained, staging / "fingerprints.npy")
        if not validation.ok:
            return validation
        validation = replace(validation, dataset=scan.dataset_id)
        files.write_json_atomically(staging / "report.json", validation.to_json())  # told, never relied on
        _keep(staging, datasets / scan.dataset_id)
        return validation
    except OSError as error:
        raise files.disk_error(error, datasets) from error
    finally:
        reader.close()
        if staging.exists():
            files.remove_tree(staging, inside=datasets)


def _keep(staging: Path, target: Path) -> None:
    """Give the staged dataset its final name; one that is there and whole stays, a damaged one is replaced."""
    files.sync_directory(staging)
    try:
        files.rename_durably(staging, target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if dataset_files.is_whole(dataset_files.Dataset(id=target.name, folder=target)):
        return
    aside = target.with_name(f".incoming-damaged-{secrets.token_hex(4)}")
    files.rename(target, aside)
    files.rename_durably(staging, target)
    files.remove_tree(aside, inside=target.parent)


def clean_up(datasets: Path) -> None:
    """Remove what crashes left half-written. Call it only where no other process stores datasets."""
    for folder in datasets.glob(".incoming-*"):
        files.remove_tree(folder, inside=datasets)
