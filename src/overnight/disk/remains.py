"""What the folders still tell of the work where its database is lost; reading only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overnight.disk import attempts, checkpoints, files
from overnight.disk.layout import Layout
from overnight.disk.views import REPORT
from overnight.domain.checkpoint import Verdict
from overnight.domain.remains import Paper, Remains, Saved, Stored, Trace


def gather(layout: Layout) -> Remains:
    """Read attempts, checkpoints, datasets and the files in the folders for people."""
    traces, unreadable = _traces(layout)
    return Remains(
        traces=traces,
        saved=_saved(layout),
        papers=list(_papers(layout)),
        stored=list(_stored(layout)),
        unreadable=unreadable,
        paused=_paused(layout),
    )


def _traces(layout: Layout) -> tuple[list[Trace], list[str]]:
    found: list[Trace] = []
    unreadable: list[str] = []
    for name in _names(layout.attempts):
        job, _, number = name.partition("-")
        if not (job.isdigit() and number.isdigit()):
            continue
        trace = _trace(layout.attempt(name), int(job), int(number))
        if trace is None:
            unreadable.append(name)
        else:
            found.append(trace)
    return found, unreadable


def _trace(folder: Path, job: int, number: int) -> Trace | None:
    try:
        spec = attempts.read_spec(folder)
    except (OSError, ValueError, TypeError):
        return None
    if (spec.attempt, spec.job) != (folder.name, job) or not isinstance(spec.settings, dict):
        return None
    report, heartbeat = attempts.read_report(folder), attempts.read_heartbeat(folder)
    if report is not None and report.attempt != spec.attempt:
        report = None
    seen = report or (heartbeat if heartbeat is not None and heartbeat.attempt == spec.attempt else None)
    return Trace(
        attempt=spec.attempt, number=number, job=job, dataset=spec.dataset_id, start_step=spec.start_step,
        settings=spec.settings, created_at=spec.created_at, left_out=spec.left_out,
        outcome=report.outcome if report is not None else None, kind=report.kind if report is not None else None,
        charged=report is not None and report.charged, message=report.message if report is not None else "",
        last_step=seen.step if seen is not None else None, total=seen.total if seen is not None else None,
        ended_at=report.ended_at if report is not None else None,
    )  # fmt: skip


def _saved(layout: Layout) -> list[Saved]:
    """Return what checkpoints say that are whole to the last byte."""
    reports = [report for report in checkpoints.scan(layout.model, verify_content=True)]
    return [
        Saved(
            step=report.step, job=manifest.job, job_step=manifest.job_step, job_total=manifest.job_total,
            start_step=manifest.start_step, dataset=manifest.dataset_id,
        )
        for report in reports
        if report.verdict is Verdict.VERIFIED and (manifest := report.manifest) is not None
    ]  # fmt: skip


def _papers(layout: Layout) -> Iterator[Paper]:
    for folder in (layout.waiting, layout.processing, layout.done, layout.failed, layout.rejected):
        names = _names(folder)
        for name in names:
            if not name.endswith(REPORT):
                yield from _paper(folder / name, _json(folder / f"{name}{REPORT}"))
            elif name.removesuffix(REPORT) not in names:  # the file was taken away, its report was not
                yield _reported(folder, name.removesuffix(REPORT), "", 0.0, _json(folder / name))


def _paper(path: Path, report: dict[str, Any]) -> Iterator[Paper]:
    try:
        with files.open_regular(path, follow_links=False) as file:
            at = os.fstat(file.fileno()).st_ctime
        yield _reported(path.parent, path.name, files.sha256_of(path), at, report)
    except OSError:
        return  # a folder, a link, or just gone


def _reported(folder: Path, name: str, sha256: str, at: float, report: dict[str, Any]) -> Paper:
    job, state = report.get("job"), report.get("state", "rejected" if folder.name == "rejected" else "")
    return Paper(
        folder=folder.name, name=name, sha256=sha256, at=at, job=job if isinstance(job, int) else None,
        state=str(state), reason=str(report.get("reason", "")),
    )  # fmt: skip


def _stored(layout: Layout) -> Iterator[Stored]:
    for name in _names(layout.datasets):
        rows, report = layout.rows(name), _json(layout.datasets / name / "report.json")
        try:
            if files.sha256_of(rows) != name:
                continue  # damaged: nothing can be trained from it
            with files.open_regular(rows, follow_links=False) as file:
                at, count = os.fstat(file.fileno()).st_mtime, sum(1 for _ in file)
        except OSError:
            continue
        sha256 = report.get("sha256")
        yield Stored(dataset=name, sha256=sha256 if isinstance(sha256, str) else "", examples=count, at=at)


def _paused(layout: Layout) -> str | None:
    """Return why the loop was paused, where it last said that it was."""
    told = _json(layout.daemon_state)
    return str(told.get("reason") or "paused") if told.get("state") == "paused" else None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
