"""What an attempt starts from: judged before it is used, and described for the checkpoints to come."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from overnight.disk import checkpoints, fingerprints
from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.domain.checkpoint import Manifest, checkpoint_name
from overnight.domain.config import Settings
from overnight.domain.errors import OvernightError
from overnight.trainer import data, environment, saving
from overnight.trainer import model as models
from overnight.trainer.failures import CorruptError, DeviceGoneError, MismatchError
from overnight.trainer.pulse import Pulse
from overnight.trainer.rehearsal import rehearsal_of
from overnight.trainer.run import Run


def read_start(spec: Spec) -> Manifest | None:
    """Return the manifest of the checkpoint to start from. Raises CorruptError where it cannot be trusted."""
    if spec.checkpoint is None:
        return None
    try:
        return checkpoints.read_manifest(Path(spec.checkpoint))
    except (OSError, ValueError) as error:
        raise CorruptError(
            "The checkpoint to start from cannot be trusted",
            found=f"{spec.checkpoint}: {error}",
            expected="a whole checkpoint",
            fix="see overnight verify; the next launch takes the newest one that is whole",
        ) from error


def describe(run: Run, base: Path, commit: str | None, device: models.Device) -> saving.Lineage:
    """Return what every checkpoint of this attempt records."""
    spec = run.spec
    if commit is None:
        memory = Layout(Path(spec.workspace)).state / "fingerprints.json"
        fingerprint = fingerprints.of_folder(base, memory=memory, on_file=run.pulse.beat)
    else:
        fingerprint = f"hub:{spec.base_model}@{commit}"
    rehearsal = rehearsal_of(spec, run.settings)
    return saving.Lineage(
        spec=spec,
        settings=run.settings,
        fingerprints={
            "config": saving.settings_fingerprint(run.settings),
            "base_model": fingerprint,
            "tokenizer": fingerprints.of_tokenizer(base),
            "dataset": spec.dataset_id,
            **({"rehearsal": rehearsal.fingerprint} if rehearsal is not None else {}),
        },
        environment=environment.facts(
            threads=spec.threads,
            device=device.kind,
            device_name=device.name,
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            dtype=str(device.base_dtype).removeprefix("torch."),
        ),
    )


def check_start(spec: Spec, lineage: saving.Lineage, manifest: Manifest | None, pulse: Pulse) -> None:
    """Refuse a start from what does not belong here; note where bit equality cannot be promised."""
    ours = lineage.fingerprints["base_model"]
    expected = [spec.base_fingerprint, manifest.fingerprints.get("base_model") if manifest is not None else None]
    for theirs in expected:
        if theirs is not None and theirs != ours:
            raise MismatchError(
                "The base model is not the one that this model was begun on",
                found=ours,
                expected=theirs,
                fix="bring the base model back, or begin a new workspace with the other one",
            )
    if manifest is None:
        return
    locked = saving.locked_values(lineage.settings)
    changed = [key for key, value in locked.items() if key in manifest.locked and manifest.locked[key] != value]
    if changed:
        raise MismatchError(
            f"Locked settings differ from the checkpoint's: {', '.join(changed)}",
            found=", ".join(f"{key} {locked[key]}" for key in changed),
            expected=", ".join(f"{key} {manifest.locked[key]}" for key in changed),
            fix="see overnight config lock",
        )
    check_device(spec, lineage, manifest)
    changes = environment.version_changes(manifest.environment, lineage.environment)
    if changes:
        pulse.note(f"{checkpoint_name(manifest.step)} was written by other versions: {'; '.join(changes)}")
    if spec.mode in ("resume", "judge"):
        check_resume(spec, lineage, manifest, pulse)


def check_device(spec: Spec, lineage: saving.Lineage, manifest: Manifest) -> None:
    """Refuse to go on elsewhere by itself: within a job on another device, and from a GPU down to the CPU ever."""
    before, now = manifest.environment.get("device"), lineage.environment["device"]
    if before is None or before == now or lineage.settings.train.device != "auto":
        return
    if spec.mode == "resume" or now == "cpu":
        raise DeviceGoneError(
            f"This {'job' if spec.mode == 'resume' else 'model'} was trained on {before}, which is not used now",
            found=str(now),
            expected=str(before),
            fix=f"bring the device back, or set train.device to {now}; overnight retry takes it up for a job begun",
        )


def check_resume(spec: Spec, lineage: saving.Lineage, manifest: Manifest, pulse: Pulse) -> None:
    """Refuse to resume another job's checkpoint; note what may change the last bit."""
    theirs = (manifest.job, manifest.start_step, manifest.dataset_id)
    if theirs != (spec.job, spec.start_step, spec.dataset_id):
        raise MismatchError(
            "The checkpoint belongs to another job",
            found=f"job {manifest.job} from step {manifest.start_step}",
            expected=f"job {spec.job} from step {spec.start_step}, on the same data",
            fix="see overnight verify",
        )
    before, now = (facts.get("rehearsal") for facts in (manifest.fingerprints, lineage.fingerprints))
    if before != now:
        raise MismatchError(
            "The job would replay other earlier rows than when it was saved",
            found=str(now),
            expected=str(before),
            fix="queue it again with overnight retry: it then continues the model with rows chosen anew",
        )
    changes = environment.differences(manifest.environment, lineage.environment)
    if changes:
        pulse.note(f"bit equality is not promised for this resume: {'; '.join(changes)}")


@contextmanager
def reading(lineage: saving.Lineage, manifest: Manifest | None) -> Iterator[None]:
    """Say which versions cannot read a checkpoint, where it was written by others; it is whole, and stays as it is.

    Raises MismatchError for what breaks while a checkpoint is loaded; whatever else breaks passes as it is.
    """
    try:
        yield
    except (OvernightError, OSError, MemoryError):
        raise
    except Exception as error:
        changes = environment.version_changes(manifest.environment, lineage.environment) if manifest is not None else []
        if manifest is None or not changes or not _is_of_loading(error):
            raise
        raise MismatchError(
            f"{checkpoint_name(manifest.step)} cannot be read by the versions that are installed now",
            found=f"{type(error).__name__}: {error}",
            expected=f"what wrote it: {'; '.join(changes)}",
            fix="install the versions that wrote it into the daemon's environment; nothing of it is changed or lost",
        ) from error


def _is_of_loading(error: BaseException) -> bool:
    """Return whether an exception came out of code that loads saved state."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name.lstrip("_").startswith(("load", "from_pretrained")) for frame in frames)


def require_steps(trainer: Any, prepared: data.Prepared, manifest: Manifest | None, settings: Settings) -> None:
    """Refuse a resume whose job would now have another number of steps: its rows would not be the ones left."""
    if manifest is None:
        return
    group = settings.train.batch_size * settings.train.gradient_accumulation_steps
    batches = -(-len(prepared.train) // settings.train.batch_size)
    steps = -(-batches // settings.train.gradient_accumulation_steps) * settings.train.epochs
    if steps != manifest.job_total:
        raise MismatchError(
            "The job has another number of steps than when it was saved",
            found=f"{steps} steps of {group} rows",
            expected=f"{manifest.job_total} steps",
            fix="set batch_size, accumulation, epochs and packing back, or retry the job",
        )
