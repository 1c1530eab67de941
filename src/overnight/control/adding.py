"""Add and validate: a copy of the user's file goes the way of the inbox; or it is only judged."""

from __future__ import annotations

import errno
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from overnight import intake
from overnight.control.unreadable import unreadable
from overnight.database import arrivals, queue
from overnight.disk import claims, dataset_files, datasets
from overnight.disk.layout import Layout
from overnight.disk.scanning import Progress, Rules
from overnight.domain.config import Settings
from overnight.domain.dataset import Validation
from overnight.domain.encoding import Encoder
from overnight.domain.errors import BusyError, OvernightError, UsageError
from overnight.domain.job import Job, JobState, Priority

POLL_S = 0.1
PATIENCE_S = 3600.0
"""How long the daemon may take to judge a file that it took before us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of one file."""

    source: Path
    job: Job | None  # None where it never came to be one; the error says why
    validation: Validation | None  # None where the daemon was faster
    warnings: list[str]
    error: OvernightError | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it waits to be trained."""
        return self.job is not None and self.job.state is not JobState.REJECTED


class Adding:
    """Adds files one after another, on one reading of the tokenizer."""

    def __init__(self, layout: Layout, connection: sqlite3.Connection, settings: Settings) -> None:
        self._layout, self._connection, self._settings = layout, connection, settings
        self._encoder: Encoder | None = intake.encoder_of(layout, settings)

    def add(self, source: Path, *, priority: Priority, progress: Progress | None) -> Added:
        """Copy, judge and queue one file; whatever is wrong with it is in the answer. Raises DiskError."""
        try:
            claim = claims.claim_by_copy(self._layout, source, at=time.time(), priority=priority)
        except (OSError, ValueError) as error:
            return Added(source=source, job=None, validation=None, warnings=[], error=_unreadable(source, error))
        taken = intake.take(
            self._layout, self._connection, claim, self._settings, now=time.time(), encoder=self._encoder,
            progress=progress,
        )  # fmt: skip
        job = taken.job or self._wait_for_daemon(claim)
        warnings = queue.accounting(self._connection, job.id).get("warnings", [])
        return Added(source=source, job=job, validation=taken.validation, warnings=[str(text) for text in warnings])

    def _wait_for_daemon(self, claim: str) -> Job:
        """Return the job that the daemon makes of a claim which it took before us."""
        deadline = time.monotonic() + PATIENCE_S
        while (job := arrivals.find_by_claim(self._connection, claim)) is None:
            if time.monotonic() >= deadline:
                raise BusyError(
                    "The daemon is still judging the file",
                    found=f"claim {claim}",
                    expected="a job",
                    fix="overnight queue shows it when it is judged",
                    code="not_yet",
                )
            time.sleep(POLL_S)
        return job


def validate(
    source: Path, *, layout: Layout | None, settings: Settings | None, trained: list[str], progress: Progress | None
) -> Validation:
    """Judge a data file and keep nothing; outside a workspace without tokens. Raises UsageError."""
    is_inside = layout is not None and settings is not None
    rules = intake.rules_of(settings, problems_told=1000) if settings is not None else Rules()
    encoder = intake.encoder_of(layout, settings) if layout is not None and settings is not None else None
    known = [dataset_files.find(layout.datasets, name).hashes_file for name in trained] if layout and is_inside else []
    try:
        return datasets.validate(source, rules=rules, encoder=encoder, trained=known, progress=progress)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError | ValueError) -> UsageError:
    """Return the user's words for a data file that cannot be read."""
    if isinstance(error, OSError) and error.errno == errno.EINVAL and source.is_dir():
        error = IsADirectoryError(errno.EISDIR, "a folder")
    fixes = {
        errno.EISDIR: "name the files in it: overnight add FOLDER/*.jsonl",
        errno.EINVAL: "write the rows into a file first",
    }
    return unreadable(str(source), error, expected="a file with one JSON object a line", fixes=fixes)
