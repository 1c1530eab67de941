"""A checkpoint as Hugging Face's trainer writes it, made ours: cleaned, described, committed.

``trainer_state.json`` inside counts the steps of the job (Hugging Face knows nothing else, and resumes by it); the
folder's name and the manifest carry the global step, and the manifest both. ``training_args.bin`` is a pickle: it is
replaced by ``training_args.json``. Lists that come from sets are sorted, so that equal states have equal bytes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from overnight.disk import checkpoints, files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict
from overnight.domain.config import LOCKED_KEYS, Settings, flatten

DROPPED = ("training_args.bin", "README.md")
"""What the libraries write and a checkpoint must not or need not hold: a pickle, and an empty form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What all checkpoints of an attempt have in common."""

    spec: Spec
    settings: Settings
    fingerprints: dict[str, str]
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the job a checkpoint stands."""

    job_step: int
    job_total: int
    epoch: int  # passes over the data that are complete
    step_in_epoch: int
    rows: int  # served so far, over all passes; packed ones count as one


def commit(staging: Path, lineage: Lineage, place: Place) -> Manifest:
    """Make what the trainer has written the model's newest checkpoint; return its manifest. Raises DiskError."""
    layout = Layout(Path(lineage.spec.workspace))
    step = lineage.spec.start_step + place.job_step
    target = layout.checkpoint(step)
    manifest = describe(lineage, place)
    if os.path.lexists(target):
        there = checkpoints.verify(target)
        if there.manifest is not None and _is_same(there, manifest):
            files.sync_directory(target.parent)  # whoever put it there may have failed in this very call
            files.remove_tree(staging, inside=staging.parent)
            return there.manifest
        checkpoints.set_aside(target, layout.trash)
    _clean(staging)
    return checkpoints.commit(staging, target, manifest)


def describe(lineage: Lineage, place: Place) -> Manifest:
    """Return the manifest of a checkpoint, without its files."""
    spec = lineage.spec
    return Manifest(
        step=spec.start_step + place.job_step,
        job=spec.job,
        job_step=place.job_step,
        job_total=place.job_total,
        start_step=spec.start_step,
        attempt=spec.attempt,
        dataset_id=spec.dataset_id,
        created_at=time.time(),
        model_name=lineage.settings.model_name,
        method=lineage.settings.method,
        locked=locked_values(lineage.settings),
        data_cursor={
            "epoch": place.epoch,
            "step_in_epoch": place.step_in_epoch,
            "rows": place.rows,
            "seed": spec.seed,
            **({"left_out": sorted(spec.left_out)} if spec.left_out else {}),
        },
        fingerprints=lineage.fingerprints,
        environment=lineage.environment,
        files={},
    )


def locked_values(settings: Settings) -> dict[str, object]:
    """Return the settings that may not change while checkpoints exist."""
    flat = flatten(settings.to_json())
    return {key: flat[key] for key in LOCKED_KEYS}


def settings_fingerprint(settings: Settings) -> str:
    """Return the hash of all settings of a job."""
    return f"blake3:{blake3(json.dumps(settings.to_json(), sort_keys=True).encode()).hexdigest()}"


def _is_same(there: CheckpointReport, ours: Manifest) -> bool:
    """Return whether a whole checkpoint of the very same place in the same job is there already."""
    theirs = there.manifest
    return (
        there.verdict is Verdict.VERIFIED
        and theirs is not None
        and (theirs.job, theirs.job_step, theirs.job_total, theirs.dataset_id, theirs.start_step)
        == (ours.job, ours.job_step, ours.job_total, ours.dataset_id, ours.start_step)
    )


def _clean(staging: Path) -> None:
    for name in DROPPED:
        files.remove_file(staging / name)
    adapter = staging / "adapter_config.json"
    if adapter.is_file():
        value = files.read_json(adapter)
        for key, item in value.items():
            if isinstance(item, list) and all(isinstance(part, str) for part in item):
                value[key] = sorted(item)
        files.write_json_atomically(adapter, dict(sorted(value.items())))
