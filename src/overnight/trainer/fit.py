"""Build, resume, train, save: one job on TRL's SFTTrainer and PEFT, from outside.

Three ways to start, told by the spec:

- ``fresh``: from the base model.
- ``resume``: the same job goes on, from its own checkpoint, bit for bit. Hugging Face does it: it counts the steps of
  the job, skips the rows served, and restores optimizer, schedule and every random number generator.
- ``continue``: the next job on the model as it stands. Weights and the optimizer's memory are kept; schedule, order of
  rows and random numbers start anew from the job's own seed; the global step goes on.

This module and those it imports load torch; ``__main__`` imports them after the first heartbeat.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl

from overnight.disk import attempts, checkpoints, fingerprints
from overnight.disk.layout import Layout
from overnight.disk.tokenizer import load_encoder
from overnight.domain.attempt import Outcome, Phase, Report, Spec, attempt_id
from overnight.domain.checkpoint import Manifest
from overnight.domain.config import Settings
from overnight.trainer import callbacks, data, environment, evaluation, saving
from overnight.trainer import model as models
from overnight.trainer.batches import BatchLog
from overnight.trainer.failures import CorruptError, DeviceGoneError, MismatchError
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse, finite
from overnight.trainer.wishes import Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What an attempt is given."""

    spec: Spec
    settings: Settings
    folder: Path
    scratch: Path
    pulse: Pulse
    wishes: Wishes
    faults: Faults


def fit(run: Run) -> Report:
    """Train the job of an attempt to its end, or until asked to leave; return the last word."""
    be_quiet()
    spec, pulse = run.spec, run.pulse
    manifest = read_start(spec)
    if spec.mode == "resume" and manifest is not None and manifest.job_step >= manifest.job_total:
        pulse.job_step, pulse.job_total, pulse.checkpoint = manifest.job_step, manifest.job_total, manifest.step
        return pulse.report(Outcome.COMPLETED, "every step of this job had been trained and saved before")
    device = models.choose_device(run.settings)
    models.be_exact(device, threads=spec.threads)
    base, commit = models.fetch(spec.base_model)
    lineage = describe(run, base, commit, device)
    check_start(spec, lineage, manifest, pulse)
    border(run)
    prepared = data.prepare(
        Path(spec.dataset), load_encoder(base), run.settings, scratch=run.scratch, pulse=pulse, wishes=run.wishes
    )
    pulse.accounts = prepared.account.numbers()
    pulse.samples = {"dropped_rows": prepared.account.dropped_rows} if prepared.account.dropped else None
    border(run)
    start = Path(spec.checkpoint) if spec.checkpoint is not None else None
    loaded = models.load(base, start, run.settings, device, seed=spec.seed)
    models.require_room(loaded, longest=prepared.account.longest, highest_token=prepared.account.highest_token)
    border(run)
    return train(run, lineage, prepared, loaded, device, manifest)


def border(run: Run) -> None:
    """Pass from one part of loading to the next; leave here where that is wished."""
    run.pulse.beat()
    run.wishes.obey_at_once()


def be_quiet() -> None:
    """Keep the log for what matters: no progress bars, no notices for programmers."""
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


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
    return saving.Lineage(
        spec=spec,
        settings=run.settings,
        fingerprints={
            "config": saving.settings_fingerprint(run.settings),
            "base_model": fingerprint,
            "tokenizer": saving.tokenizer_fingerprint(base),
            "dataset": spec.dataset_id,
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
    if spec.mode == "resume":
        check_resume(spec, lineage, manifest, pulse)


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
    before, now = manifest.environment.get("device"), lineage.environment["device"]
    if before is not None and before != now and lineage.settings.train.device == "auto":
        raise DeviceGoneError(
            f"This job was begun on {before}, and there is no such device now",
            found=str(now),
            expected=str(before),
            fix=f"bring the device back, or cancel the job, set train.device to {now} and retry it",
        )
    changes = environment.differences(manifest.environment, lineage.environment)
    if changes:
        pulse.note(f"bit equality is not promised for this resume: {'; '.join(changes)}")


def train(
    run: Run,
    lineage: saving.Lineage,
    prepared: data.Prepared,
    loaded: models.Loaded,
    device: models.Device,
    manifest: Manifest | None,
) -> Report:
    """Run the trainer, evaluate at the end, and say how it went."""
    spec, pulse = run.spec, run.pulse
    trainer = build(run, prepared, loaded, device)
    batches = BatchLog(trainer.data_collator)
    trainer.data_collator = batches
    guard = callbacks.Guard(batches, pulse)
    guard.watch(trainer.model)
    leaver = callbacks.Leaver(run.wishes)
    measure = Measure(run, trainer, batches, prepared.held_out)
    for callback in (
        callbacks.Starter(spec, pulse),
        callbacks.Evaluator(run.settings.evaluation.every_steps, measure),
        callbacks.Striker(run.faults),
        guard,
        callbacks.Reporter(pulse, guard),
        leaver,
        callbacks.Committer(lineage, pulse, run.faults, rows_in_epoch=len(prepared.train)),
    ):
        trainer.add_callback(callback)
    require_steps(trainer, prepared, manifest if spec.mode == "resume" else None, run.settings)
    run.wishes.can_leave_at_once = False
    run.wishes.obey_at_once()
    pulse.enter(Phase.TRAINING)
    trainer.train(resume_from_checkpoint=spec.checkpoint if spec.mode == "resume" else None)
    pulse.flush()
    if pulse.checkpoint != pulse.step or pulse.job_total is None:
        raise RuntimeError(f"training ended at step {pulse.step}, and the newest checkpoint is {pulse.checkpoint}")
    if pulse.job_step < pulse.job_total:
        reason = leaver.reason or "asked to stop"
        return pulse.report(Outcome.PREEMPTED, f"saved at step {pulse.step} and left: {reason}")
    measure()
    pulse.flush()
    message = f"all {pulse.job_total} steps are trained and saved at step {pulse.step}"
    return pulse.report(Outcome.COMPLETED, message)


def build(run: Run, prepared: data.Prepared, loaded: models.Loaded, device: models.Device) -> Any:
    """Return TRL's trainer for this job."""
    trainer = trl.SFTTrainer(
        model=loaded.model,
        args=arguments(run, device, weights=loaded.weights),
        train_dataset=prepared.train,
        processing_class=loaded.tokenizer,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if run.settings.method == "qlora":
        models.use_full_precision_adapters(trainer.model)
    return trainer


def arguments(run: Run, device: models.Device, *, weights: int) -> Any:
    """Translate our settings into TRL's."""
    train, settings = run.settings.train, run.settings
    return trl.SFTConfig(
        output_dir=str(run.scratch),
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler,
        warmup_steps=train.warmup_steps,
        num_train_epochs=train.epochs,
        max_length=settings.max_length,
        packing=train.packing,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,  # the collator notes the row numbers; the model never sees them
        seed=run.spec.seed,
        data_seed=run.spec.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint.every_steps,
        save_total_limit=None,
        eval_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=device.kind == "cpu",
        bf16=device.has_bfloat16,
        fp16=False,
        gradient_checkpointing=device.kind != "cpu" and weights >= models.RECOMPUTE_FROM_WEIGHTS,
        dataloader_num_workers=0,
        dataloader_pin_memory=device.kind == "cuda",
        average_tokens_across_devices=False,
        push_to_hub=False,
    )


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


class Measure:
    """Evaluates the held-out rows, notes what came of it, and never ends the training."""

    def __init__(self, run: Run, trainer: Any, batches: BatchLog, rows: list[dict[str, Any]]) -> None:
        self.run = run
        self.trainer = trainer
        self.collate = batches.collate
        self.rows = rows
        self.skipped_step = step_of_failed_evaluation(run.spec, run.folder)

    def __call__(self) -> None:
        """Evaluate now, where there is something to evaluate."""
        pulse, settings = self.run.pulse, self.run.settings
        if not self.rows:
            return
        if pulse.step == self.skipped_step:
            pulse.note(f"evaluation at step {pulse.step} skipped: the last attempt ended inside it")
            return
        limit_s = settings.watch.eval_stuck_s * evaluation.LIMIT_SHARE
        try:
            result = evaluation.evaluate(
                self.trainer,
                self.collate,
                self.rows,
                batch_size=settings.train.batch_size,
                limit_s=limit_s,
                pulse=pulse,
                should_leave=lambda: self.run.wishes.reason() is not None,
                faults=self.run.faults,
            )
        except evaluation.EvaluationTimeout as error:
            pulse.note(f"evaluation at step {pulse.step} skipped: {error}")
            return
        if result is None:
            pulse.note(f"evaluation at step {pulse.step} abandoned: asked to stop")
            return
        pulse.eval_loss = result.loss
        pulse.record(
            {
                "step": pulse.step,
                "job_step": pulse.job_step,
                "eval_loss": finite(result.loss),
                "eval_rows": result.rows,
                "eval_seconds": round(result.seconds, 3),
            }
        )


def step_of_failed_evaluation(spec: Spec, folder: Path) -> int | None:
    """Return the step at which the attempt before this one ended inside an evaluation, or None."""
    number = int(spec.attempt.rpartition("-")[2]) if spec.attempt.rpartition("-")[2].isdigit() else 1
    before = folder.with_name(attempt_id(spec.job, number - 1))
    heartbeat = attempts.read_heartbeat(before)
    if heartbeat is None or heartbeat.phase is not Phase.EVALUATING or attempts.read_report(before) is not None:
        return None
    return heartbeat.step
