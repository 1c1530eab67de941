"""What a version is made of: the newest whole checkpoint, the base that it belongs to, and room for the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from overnight import starting
from overnight.database import queue
from overnight.database.connection import Connection
from overnight.disk import base_models, config, files, locked, transition
from overnight.disk.checkpoints import read_manifest
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict
from overnight.domain.config import Settings
from overnight.domain.errors import BusyError, ConfigError, DiskError, FailedError
from overnight.domain.job import JobState
from overnight.domain.locked import locked_keys_changed, refused
from overnight.domain.merge import needed_bytes
from overnight.domain.start import Start
from overnight.publishing import place

INODES = 64
"""A version takes fewer files than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a version is made of."""

    settings: Settings
    start: Start
    newest: CheckpointReport
    manifest: Manifest
    base: Path
    place: place.Place


def find(layout: Layout, connection: Connection) -> Ground:
    """Return what the version is to be made of. Raises OvernightError where there is nothing, or it does not fit."""
    settings = config.read(layout)
    problems = locked_keys_changed(settings, locked.read(layout))
    if problems:
        raise refused(problems)
    begun = half_trained(layout, connection)
    if begun is not None:
        raise BusyError(
            "ABORT: a job is half trained",
            found=begun,
            expected="a model at the border between two jobs",
            fix="let it end, or overnight cancel it; overnight consolidate --wait waits for it",
            code="half_trained",
        )
    committed = starting.ever_committed(layout, connection)
    start = starting.find(layout, base_model=settings.base_model, ever_committed=committed)
    if start.hindrances:
        raise refused(start.hindrances)
    _require_newest(start)
    newest = start.newest
    if newest is None or newest.manifest is None:
        in_use = locked.version_in_use(layout)
        raise FailedError(
            f"Nothing was trained since {in_use}" if in_use else "Nothing was trained yet",
            found="no checkpoint in current_model/",
            expected="a trained job",
            fix="overnight add FILE, overnight up; then consolidate",
            code="nothing_new",
        )
    base = _base_folder(layout, settings.base_model, newest.manifest.fingerprints.get("base_model", ""))
    found = place.find(layout, connection)
    return Ground(
        settings=settings, start=start, newest=newest, manifest=newest.manifest, base=base, place=found
    )  # fmt: skip


def _require_newest(start: Start) -> None:
    """Refuse where a newer checkpoint of ours is passed over: a version of an older one would lack what it learnt."""
    newer = next((report for report in start.passed_over if report.verdict is not Verdict.FOREIGN), None)
    if newer is None or start.newest is None:
        return
    name, older = Path(newer.path).name, Path(start.newest.path).name
    back = f"bring a copy back, overnight versions restore {name}"
    raise FailedError(
        f"{name} {newer.told}; {older} is not published in its place",
        found=newer.reason,
        expected="the newest checkpoint as it was committed",
        fix=f"{'try again when the disk answers' if newer.is_unreadable else back};"
        " to go without it, move the folder out of current_model/",
        code="unreadable" if newer.is_unreadable else newer.verdict.value,
    )


def _base_folder(layout: Layout, base_model: str, fingerprint: str) -> Path:
    """Return the folder of the base model; of one from the Hub, where its library keeps the very commit."""
    path = base_models.resolve(layout, base_model)
    if os.path.isabs(path):
        return Path(path)
    name, _, commit = fingerprint.removeprefix("hub:").partition("@")
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub"
    )
    folder = Path(cache) / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    if not commit or not folder.is_dir():
        raise ConfigError(
            "The base model is not on this machine",
            found=f"no {folder}",
            expected="the very files that the adapter was trained on",
            fix="let a job start once: the trainer fetches them",
            code="base_model",
        )
    return folder


def require_space(layout: Layout, ground: Ground) -> None:
    """Refuse before anything is written what cannot fit. Raises DiskError."""
    checkpoint = Path(ground.newest.path)
    is_full = ground.settings.method == "full"
    weights = _bytes_of(checkpoint if is_full else ground.base)
    adapter = 0 if is_full else _bytes_of(checkpoint)
    needed = needed_bytes(weights=weights, adapter=adapter) + int(ground.settings.disk.min_free_gb * 1e9)
    free = files.free_bytes(layout.versions)
    if free < needed:
        raise DiskError(
            "A version does not fit on the disk; nothing was changed",
            found=f"{free / 1e9:.2f} GB free in {layout.versions}",
            expected=f"{needed / 1e9:.2f} GB: the weights, the adapter, and disk.min_free_gb",
            fix="overnight cleanup, overnight versions delete V, or a bigger disk",
            code="ENOSPC",
        )
    facts = os.statvfs(layout.versions)
    if facts.f_files and facts.f_favail < INODES:
        raise DiskError(
            "A version does not fit on the disk; nothing was changed",
            found=f"{facts.f_favail} free inodes in {layout.versions}",
            expected=f"{INODES}",
            fix="remove files that nobody needs",
            code="ENOSPC",
        )


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def half_trained(layout: Layout, connection: Connection) -> str | None:
    """Return which unfinished job the model stands in the middle of, or None."""
    names = transition.checkpoint_names(layout.model)
    for name in names:
        try:
            manifest = read_manifest(layout.model / name)
        except (OSError, ValueError):
            continue
        job = queue.find(connection, manifest.job)
        is_open = job is not None and job.state in (JobState.QUEUED, JobState.RUNNING)
        if job is not None and is_open and manifest.job_step < manifest.job_total:
            return f"{job.file} (job {job.id}) is at step {manifest.job_step} of {manifest.job_total}"
        return None
    return None
