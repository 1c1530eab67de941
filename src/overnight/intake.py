r"""A claimed file becomes a job: judged as a stream, stored by its content, queued, and put where people see it.

::

    claimed/<claim>/NAME --store--> datasets/<id>/ --submit--> job in the database --file--> queue/waiting/NAME
                     \--submit (rejected)--> job in the database --file--> rejected/NAME + NAME.report.json

Each arrow leaves a mark: the stored dataset, the job with the claim's id, the file out of the claim. So a claim can be
taken again after a crash at any point; what is done is found and not done twice. `add` and the inbox both end here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.database import arrivals, events, queue
from overnight.database.connection import Connection
from overnight.disk import base_models, claims, dataset_files, datasets, tokenizer, views
from overnight.disk.claims import Claim
from overnight.disk.folder_lock import lock_folder
from overnight.disk.layout import Layout
from overnight.disk.scanning import Progress, Rules
from overnight.domain.config import Settings
from overnight.domain.dataset import Validation
from overnight.domain.encoding import Encoder
from overnight.domain.errors import DataError, OvernightError
from overnight.domain.job import Job, JobState
from overnight.domain.names import safe_name

REPORT_PROBLEMS = 10_000
"""Problems that a report beside a rejected file lists one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of one claim."""

    claim: str
    job: Job | None  # None where somebody else is at it, or the error says why not
    validation: Validation | None  # None where it had been judged before
    error: OvernightError | None = None


def encoder_of(layout: Layout, settings: Settings) -> Encoder | None:
    """Return the base model's encoder as far as it is on this machine; None where tokens cannot be counted."""
    try:
        base = base_models.resolve(layout, settings.base_model)
        folder = Path(base) if Path(base).is_absolute() else tokenizer.cached_folder(base)
        return tokenizer.load_encoder(folder) if folder is not None else None
    except (OvernightError, OSError):
        return None  # the trainer says what is wrong with it; rows are judged all the same


def rules_of(settings: Settings, *, problems_told: int = REPORT_PROBLEMS) -> Rules:
    """Return by what the settings have files judged."""
    return Rules(
        bad_rows=settings.queue.bad_rows,
        max_length=settings.max_length,
        supervise=settings.train.supervise,
        problems_told=problems_told,
    )


def take_all(
    layout: Layout,
    connection: Connection,
    settings: Settings,
    *,
    now: Callable[[], float],
    encoder: Encoder | None = None,
) -> Iterator[Taken]:
    """Take every claim in order of arrival; one that cannot be taken does not hold up the others."""
    encoder = encoder or encoder_of(layout, settings)
    for claim in claims.pending(layout):
        try:
            yield take(layout, connection, claim, settings, now=now(), encoder=encoder)
        except OvernightError as error:
            yield Taken(claim=claim, job=None, validation=None, error=error)


def take(
    layout: Layout,
    connection: Connection,
    claim: str,
    settings: Settings,
    *,
    now: float,
    encoder: Encoder | None,
    progress: Progress | None = None,
) -> Taken:
    """Make a job of a claimed file, or finish what a crash interrupted. The claim stays where it raises."""
    with lock_folder(layout.claimed / claim) as is_ours:
        if not is_ours:
            return Taken(claim=claim, job=arrivals.find_by_claim(connection, claim), validation=None)
        found = claims.find(layout, claim)
        job = arrivals.find_by_claim(connection, claim)
        validation = None
        if found.file is not None:
            claims.make_durable(layout, found)
            if job is None or job.state is JobState.REJECTED:  # the report beside a rejected file needs the problems
                validation = _judge(layout, connection, found, settings, encoder, progress)
                job = _submit(connection, found, validation, now=now)
            _file(layout, connection, job, found.file, validation)
        if job is not None and job.state is JobState.REJECTED:
            queue.set_filed(connection, job.id)
            job = queue.find(connection, job.id)
        claims.finish(layout, found)
        return Taken(claim=claim, job=job, validation=validation)


def _judge(
    layout: Layout,
    connection: Connection,
    claim: Claim,
    settings: Settings,
    encoder: Encoder | None,
    progress: Progress | None,
) -> Validation:
    assert claim.file is not None
    seen = arrivals.trained_datasets(connection)
    trained = [dataset_files.find(layout.datasets, known).hashes_file for known in seen]
    try:
        return datasets.store(
            claim.file, layout.datasets, rules=rules_of(settings), encoder=encoder, trained=trained, progress=progress
        )
    except PermissionError as error:
        raise DataError(
            f"{claim.name} cannot be read",
            found=error.strerror,
            expected="a file that the daemon's user may read",
            fix=f"chmod or chown {claim.folder}/*; it is tried again by itself",
            code="unreadable",
        ) from error


def _submit(connection: Connection, claim: Claim, validation: Validation, *, now: float) -> Job:
    assert claim.file is not None
    known = arrivals.find_by_claim(connection, claim.id)
    if known is not None:
        return known
    earlier = queue.earlier_with(connection, validation.sha256)
    job = queue.submit(
        connection,
        claim=claim.id,
        file=safe_name(claim.file.name),
        sha256=validation.sha256,
        dataset=validation.dataset,
        priority=claim.priority,
        examples=validation.accepted if validation.ok else 0,
        accounting=_accounting(validation, earlier),
        rejection=None if validation.ok else validation.reason,
        now=now,
    )
    for warning in _warnings(validation, earlier):
        events.record(
            connection, now=now, kind="job.data", level="warning", message=f"{job.file}: {warning}", job=job.id
        )
    return job


def _warnings(validation: Validation, earlier: list[Job]) -> list[str]:
    told = list(validation.warnings)
    if validation.ok and validation.rejected:
        told.append(f"{validation.rejected} of {validation.rows} rows are bad and left out: {_codes(validation)}")
    if earlier:
        same = ", ".join(f"job {job.id} ({job.file}, {job.state.value})" for job in earlier[-3:])
        told.append(f"the same content came before as {same}; it is a job of its own")
    return told


def _codes(validation: Validation) -> str:
    return ", ".join(f"{count} x {code}" for code, count in validation.problem_counts.items())


def _accounting(validation: Validation, earlier: list[Job]) -> dict[str, Any]:
    """Return what is remembered with the job."""
    whole = validation.to_json()
    kept = ("rows", "accepted", "rejected", "bytes", "format", "formats", "tokens", "duplicates", "already_trained",
            "other_answers", "problem_counts", "notes")  # fmt: skip
    return {
        **{name: whole[name] for name in kept},
        "warnings": _warnings(validation, earlier),
        "same_content_jobs": [job.id for job in earlier],
    }


def _file(layout: Layout, connection: Connection, job: Job, source: Path, validation: Validation | None) -> None:
    """Move the user's file out of the claim, to where people see what became of it."""
    is_first = arrivals.is_first_of_its_name(connection, job)
    if job.state is JobState.REJECTED:
        assert validation is not None
        report = {**validation.to_json(), "file": job.file, "job": job.id, "reason": job.reason}
        views.into_rejected(layout, job, source, report, is_first=is_first)
        return
    views.into_waiting(layout, job, source, is_first=is_first)
    known = queue.find(connection, job.id)
    if known is not None and known.state not in (JobState.QUEUED, JobState.RUNNING):
        arrivals.set_unfiled(connection, job.id)  # a crash kept the file here until its job was over
