"""The model as it stands becomes a version: merged aside, verified, then put in use by one durable plan.

Until the plan is written nothing has changed: whatever ends the work before, the next command removes what was
prepared. From then on the version, config.json's base model, the lock and the next base have moved together.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from overnight.database import events, queue
from overnight.database.connection import Connection
from overnight.disk import files, locked, versions
from overnight.disk.checkpoints import read_manifest
from overnight.disk.layout import Layout
from overnight.disk.manifest import digest_of
from overnight.disk.transition import Transition
from overnight.domain.attempt import Heartbeat
from overnight.domain.errors import FailedError, OvernightError
from overnight.domain.merge import MergeReport, MergeSpec
from overnight.domain.version import MAKING, Version, as_description, base_model_of, next_id, number_of
from overnight.launchers.processes import usable_threads
from overnight.publishing import grounds, merging, place, settling
from overnight.publishing.border import at_border

FIX = "wait for its end, or overnight pause, then try again; overnight consolidate --wait does so by itself"
PROBES, PROBE_BYTES = 3, 100_000
"""So many rows of the newest data are asked, none longer than that."""


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
    with at_border(layout, connection, what=MAKING, fix=FIX, now=now):
        merging.end_leftover(layout)
        versions.remove_staging(layout)
        ground = grounds.find(layout, connection)
        grounds.require_space(layout, ground)
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


def _spec(layout: Layout, ground: grounds.Ground, staging: Path, *, now: float) -> MergeSpec:
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
        takes_lock=False,  # we hold the one that keeps trainers away
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
    ground: grounds.Ground,
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
    layout: Layout, ground: grounds.Ground, version: Version, staging: str, *, now: float, wish: str | None
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
