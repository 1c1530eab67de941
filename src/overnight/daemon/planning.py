"""How a job goes on from where the model stands: fresh, continued, resumed, or complete already."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from overnight.domain.checkpoint import CheckpointReport, Manifest
from overnight.domain.config import Settings
from overnight.domain.job import Job
from overnight.domain.version import Version
from overnight.launchers.processes import usable_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a job is to go on."""

    mode: str  # "fresh" | "continue" | "resume" | "judge" | "complete"
    start_step: int  # global step at which the job began
    first_step: int  # global step from which this attempt goes on
    checkpoint: CheckpointReport | None
    settings: dict[str, Any]
    reason: str
    base_fingerprint: str | None = None  # what the base model has to be, where that is known


def is_own(manifest: Manifest, job: Job) -> bool:
    """Return whether a checkpoint was saved by this very run of a job over its dataset."""
    return manifest.job == job.id and manifest.start_step == job.start_step and manifest.dataset_id == job.dataset


def plan_of(
    job: Job,
    newest: CheckpointReport | None,
    settings: Settings,
    *,
    version: Version | None = None,
    is_judged: bool = False,
) -> Plan:
    """Decide how a job goes on from where the model stands.

    ``version`` is in use and nothing was trained on it yet; ``is_judged``: something is held out to judge the job by.
    """
    manifest = newest.manifest if newest is not None else None
    told = manifest.fingerprints if manifest is not None else version.fingerprints if version is not None else {}
    fingerprint = told.get("base_model")
    if newest is not None and manifest is not None and job.settings is not None and is_own(manifest, job):
        is_complete = manifest.job_step >= manifest.job_total
        return Plan(
            mode="resume" if not is_complete else "judge" if is_judged else "complete",
            start_step=manifest.start_step,
            first_step=newest.step,
            checkpoint=newest,
            settings=job.settings,
            reason=f"resumes at step {newest.step}" if not is_complete else "was trained to the end already",
            base_fingerprint=fingerprint,
        )
    step = newest.step if newest is not None else version.step if version is not None else 0
    base = f"version {version.id}, step {step}" if version is not None else "the base model"
    return Plan(
        mode="fresh" if newest is None else "continue",
        start_step=step,
        first_step=step,
        checkpoint=newest,
        settings=kept(job, settings) or frozen(settings),
        base_fingerprint=fingerprint,
        reason=f"begins from {base}" if newest is None else f"continues the model from step {step}",
    )


def kept(job: Job, settings: Settings) -> dict[str, Any] | None:
    """Return the settings of a job whose training had begun when it was killed before its first checkpoint.

    It starts again and must end as if nothing had happened, whatever was edited meanwhile. One that never came to
    train (a device that is not there, a method that is refused) takes what the operator has mended, and so does one
    whose base model is not in use any more: another version is.
    """
    if job.steps is None or job.settings is None or job.settings.get("base_model") != settings.base_model:
        return None
    return job.settings


def frozen(settings: Settings) -> dict[str, Any]:
    """Return the settings that a job keeps to its end, the number of threads settled."""
    value = settings.to_json()
    if value["train"]["threads"] is None:
        value["train"] = {**value["train"], "threads": usable_threads()}
    return value


def threads_of(settings: Settings) -> int:
    """Return the number of threads that a trainer with these settings gets."""
    return settings.train.threads or usable_threads()


def seed_of(seed: int, start_step: int) -> int:
    """Return the seed of a job: another one for each job, the same one for each of its attempts."""
    digest = hashlib.blake2b(f"{seed}:{start_step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
