"""The model as it stands becomes a version: merged aside, verified, then put in use by one durable plan.

Until the plan is written nothing has changed: whatever ends the work before, the next command removes what was
prepared. From then on the version, config.json's base model, the lock and the next base have moved together.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight import starting
from overnight.database import events, queue
from overnight.database.connection import Connection
from overnight.disk import base_models, config, files, locked, transition, versions
from overnight.disk.checkpoints import read_manifest
from overnight.disk.layout import Layout
from overnight.disk.manifest import digest_of
from overnight.disk.transition import Transition
from overnight.domain.attempt import Heartbeat
from overnight.domain.checkpoint import CheckpointReport, Manifest
from overnight.domain.config import Settings
from overnight.domain.errors import BusyError, ConfigError, DiskError, FailedError, OvernightError
from overnight.domain.job import JobState
from overnight.domain.locked import locked_keys_changed, refused
from overnight.domain.merge import MergeReport, MergeSpec, needed_bytes
from overnight.domain.start import Start
from overnight.domain.version import Version, as_description, base_model_of, next_id, number_of
from overnight.launchers.processes import usable_threads
from overnight.publishing import merging, place, settling
from overnight.publishing.resting import at_rest

WHAT = "a version is being made"
FIX = "wait for its end, or overnight pause, then try again; overnight consolidate --wait does so by itself"
PROBES, PROBE_BYTES = 3, 100_000
"""So many rows of the newest data are asked, none longer than that."""

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


def consolidate(
    layout: Layout,
    connection: Connection,
    *,
    description: str,
    now: float,
    wish: str | None = None,
    tell: Callable[[Heartbeat], None] = lambda beat: None,
) -> Version:
    """Make the model as it stands a version and put it in use; return it.

    Raises BusyError while something trains, DiskError where it does not fit or cannot be written, FailedError or
    ConfigError where the merge is refused: nothing is changed then.
    """
    words = as_description(description)
    with at_rest(layout, connection, what=WHAT, fix=FIX, now=now):
        settling.settle(layout, connection)
        merging.end_leftover(layout)
        versions.remove_staging(layout)
        ground = _ground(layout, connection)
        _require_space(layout, ground)
        identity = next_id(_given_ids(layout, connection))
        staging = layout.versions / f".{identity}.{files.token()}.staging"
        try:
            report = merging.run(layout, _spec(layout, ground, staging, now=now), ground.settings, tell=tell)
            version = _describe(layout, connection, ground, identity, words, report, now=now)
            version = versions.seal(staging, version)
            _compare(version, report)
            plan = _plan(layout, ground, version, staging.name, now=now, wish=wish)
        except BaseException:
            with contextlib.suppress(OSError, OvernightError):
                versions.remove_staging(layout)
                merging.end_leftover(layout)
            raise
        settling.commit(layout, connection, plan)
        with contextlib.suppress(OSError):
            merging.end_leftover(layout)
    return version


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


def _ground(layout: Layout, connection: Connection) -> Ground:
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


def _require_space(layout: Layout, ground: Ground) -> None:
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


def _given_ids(layout: Layout, connection: Connection) -> list[str]:
    """Return every id that was ever given: none is given twice, also where its version was deleted."""
    last = events.newest_of(connection, "version.published")
    told = str(last["data"].get("version")) if last is not None else ""
    resting = [path.name.lstrip(".").partition(".")[0] for path in _entries(layout.trash)]
    kept = [path.name.removeprefix("before-") for path in _entries(layout.history)]
    return [one for one in [told, *versions.identities(layout), *resting, *kept] if number_of(one) is not None]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _spec(layout: Layout, ground: Ground, staging: Path, *, now: float) -> MergeSpec:
    settings = ground.settings
    return MergeSpec(
        attempt=f"merge-{staging.name.split('.')[1]}",
        workspace=str(layout.root),
        base_model=str(ground.base),
        base_fingerprint=ground.manifest.fingerprints.get("base_model", ""),
        checkpoint=ground.newest.path,
        method=settings.method,
        target=str(staging),
        step=ground.newest.step,
        probes=_probes(layout.rows(ground.manifest.dataset_id)),
        seed=settings.seed,
        threads=settings.train.threads or usable_threads(),
        device="cpu",
        created_at=now,
    )


def _probes(rows: Path) -> list[str]:
    """Return the texts of a few rows of the newest data: what was learnt last is asked as well."""
    probes: list[str] = []
    with contextlib.suppress(OSError, ValueError, RecursionError), open(rows, "rb") as file:
        for line in itertools.islice(file, PROBES):
            if len(line) <= PROBE_BYTES:
                probes.append("\n".join(_texts(json.loads(line))))
    return [probe for probe in probes if probe.strip()]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _compare(version: Version, report: MergeReport) -> None:
    """Raise FailedError where what lies there now is not what the merge wrote, read again and compared."""
    for name, written in report.files.items():
        record = version.files.get(name)
        if record is None or record.blake3 != written:
            raise FailedError(
                "The merged model changed after it was compared; it is discarded",
                found=f"{name}: {record.blake3 if record is not None else 'gone'}",
                expected=written,
                fix="check the disk, then try again",
                code="merge_changed",
            )


def _describe(
    layout: Layout,
    connection: Connection,
    ground: Ground,
    identity: str,
    words: str,
    report: MergeReport,
    *,
    now: float,
) -> Version:
    settings, manifest = ground.settings, ground.manifest
    datasets, metrics = _trained(connection, ground.place.jobs)
    numbers = locked.read(layout).values
    return Version(
        id=identity,
        parent=ground.place.version,
        kind="full" if settings.method == "full" else "merge",
        description=words,
        created_at=now,
        step=ground.newest.step,
        model_name=settings.model_name,
        method=settings.method,
        base_model=settings.base_model,
        base_path=str(ground.base),
        base_fingerprint=manifest.fingerprints.get("base_model", ""),
        checkpoint=Path(ground.newest.path).name,
        checkpoint_digest=_digest_of(Path(ground.newest.path)),
        datasets=datasets,
        config=settings.to_json(),
        locked={**numbers, "base_model": base_model_of(identity)},
        metrics=metrics,
        libraries={**manifest.environment, **report.versions},
        merge=_figures(report),
        fingerprints={},
    )


def _digest_of(checkpoint: Path) -> str:
    import dataclasses

    return digest_of(dataclasses.asdict(read_manifest(checkpoint)))


def _figures(report: MergeReport) -> dict[str, Any]:
    return {
        "max_abs_difference": report.max_abs_difference,
        "max_abs_difference_unrounded": report.max_abs_difference_unrounded,
        "max_abs_difference_from_base": report.max_abs_difference_from_base,
        "tolerance": report.tolerance,
        "tensors_changed": report.tensors_changed,
        "tensors": report.tensors,
        "dtype": report.dtype,
        "probes": report.probes,
        "seconds": report.seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
        "notes": report.notes,
    }


def _trained(connection: Connection, jobs: list[int]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what was trained since the parent, and the last numbers that were measured."""
    datasets: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for number in jobs:
        job = queue.find(connection, number)
        if job is None:
            continue
        trained = queue.accounting(connection, number).get("trained") or {}
        datasets.append(
            {
                "job": job.id,
                "file": job.file,
                "sha256": job.sha256,
                "dataset": job.dataset,
                "examples": job.examples,
                "steps": trained.get("steps") or job.steps,
                "state": job.state.value,
            }
        )
        metrics = {
            name: trained.get(name) for name in ("loss", "eval_loss") if trained.get(name) is not None
        } or metrics
    return datasets, metrics


def _plan(
    layout: Layout, ground: Ground, version: Version, staging: str, *, now: float, wish: str | None
) -> Transition:
    lock = files.json_bytes(locked.of_version(version)).decode("utf-8")
    return Transition(
        id=files.token(),
        kind="published",
        version=version.id,
        before=ground.place.version,
        at=now,
        staging=staging,
        save=place.made_from(version.id),
        leaving=ground.place.checkpoints,
        restore=None,
        coming=[],
        saved=place.to_save(layout, ground.place, step=version.step, at=now),
        config=place.config_with(layout, {"base_model": base_model_of(version.id)}),
        config_lock=lock,
        step=version.step,
        checkpoint=None,
        jobs=[],
        message=f"{version.id} is published at step {version.step}, made from {ground.place.name};"
        " training goes on from it",
        wish=wish,
    )
