"""Build, resume, train, save: one job on TRL's SFTTrainer and PEFT, from outside.

Four ways to start, told by the spec:

- ``fresh``: from the base model.
- ``resume``: the same job goes on, from its own checkpoint, bit for bit. Hugging Face does it: it counts the steps of
  the job, skips the rows served, and restores optimizer, schedule and every random number generator.
- ``judge``: all is trained and saved, and not yet judged.
- ``continue``: the next job on the model as it stands. Weights and the optimizer's memory are kept; schedule, order of
  rows and random numbers start anew from the job's own seed; the global step goes on.

This module and those it imports load torch; ``__main__`` imports them after the first heartbeat.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import datasets
import transformers
import trl

from overnight.disk.layout import Layout
from overnight.disk.tokenizer import load_encoder
from overnight.domain.attempt import Outcome, Phase, Report
from overnight.domain.checkpoint import Manifest
from overnight.domain.encoding import Encoder
from overnight.trainer import callbacks, data, saving
from overnight.trainer import model as models
from overnight.trainer.batches import BatchLog
from overnight.trainer.committer import Committer
from overnight.trainer.evaluation import Measure
from overnight.trainer.guard import Guard
from overnight.trainer.heldout import Earlier
from overnight.trainer.judge import Judge, Left
from overnight.trainer.kept import kept_in
from overnight.trainer.pulse import Pulse
from overnight.trainer.rehearsal import rehearsal_of
from overnight.trainer.run import Run
from overnight.trainer.start import check_start, describe, read_start, reading, require_steps


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
    rehearsal = rehearsal_of(spec, run.settings)
    encoder = load_encoder(base)
    earlier = Earlier(spec, share=run.settings.evaluation.holdout, on_block=lambda: border(run))
    prepared = data.prepare(
        Path(spec.dataset),
        encoder,
        run.settings,
        dataset_id=spec.dataset_id,
        scratch=run.scratch,
        pulse=pulse,
        wishes=run.wishes,
        left_out=frozenset(spec.left_out),
        kept=kept_in(
            Layout(Path(spec.workspace)).tokens,
            dataset_id=spec.dataset_id,
            tokenizer=lineage.fingerprints["tokenizer"],
            settings=run.settings,
            left_out=spec.left_out,
            rehearsal=rehearsal.fingerprint if rehearsal is not None else "",
            earlier=earlier.ids,
        ),
        rehearsal=rehearsal,
        earlier=earlier,
    )
    pulse.accounts = prepared.account.numbers()
    pulse.stretch = prepared.account.stretch
    tell_rows(prepared.account, pulse)
    border(run)
    start = Path(spec.checkpoint) if spec.checkpoint is not None else None
    with reading(lineage, manifest):
        loaded = models.load(base, start, run.settings, device, seed=spec.seed)
    models.require_room(loaded, longest=prepared.account.longest, highest_token=prepared.account.highest_token)
    border(run)
    return train(run, lineage, base, encoder, prepared, loaded, device, manifest)


def tell_rows(account: data.Account, pulse: Pulse) -> None:
    """Say which rows have nothing to learn, and where replayed ones come from."""
    dropped = {"dropped_rows": account.dropped_rows} if account.dropped else {}
    replayed = {"replayed_from": account.replayed_from} if account.replayed_wanted else {}
    pulse.samples = {**dropped, **replayed} or None
    if account.held_out_earlier:
        pulse.note(f"{account.held_out_earlier} rows are not trained: an earlier job holds the same ones out")
    if account.replayed < account.replayed_wanted:
        pulse.note(
            f"train.replay wants {account.replayed_wanted} earlier rows beside this file's, and only"
            f" {account.replayed} are there: each of them is replayed once an epoch"
        )


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


def train(
    run: Run,
    lineage: saving.Lineage,
    base: Path,
    encoder: Encoder,
    prepared: data.Prepared,
    loaded: models.Loaded,
    device: models.Device,
    manifest: Manifest | None,
) -> Report:
    """Run the trainer, evaluate at the end, and say how it went."""
    spec, pulse = run.spec, run.pulse
    trainer = build(run, prepared, loaded, device)
    blank, own = loaded.tokenizer.pad_token_id or 0, prepared.account.rows
    batches = BatchLog(trainer.data_collator, spec.left_out, blank=blank, own=own)
    trainer.data_collator = batches
    guard = Guard(batches, pulse, run.faults)
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
        callbacks.Keeper(run),
    ):
        trainer.add_callback(callback)
    Committer(run, lineage, base, rows_in_epoch=len(prepared.train)).attach(trainer)
    require_steps(trainer, prepared, manifest if spec.mode == "resume" else None, run.settings)
    run.wishes.can_leave_at_once = False
    run.wishes.obey_at_once()
    if spec.mode == "judge" and manifest is not None:
        pulse.job_step, pulse.job_total, pulse.checkpoint = manifest.job_step, manifest.job_total, manifest.step
        trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)  # the same number formats as in training
    else:
        pulse.enter(Phase.TRAINING)
        with reading(lineage, manifest):
            trainer.train(resume_from_checkpoint=spec.checkpoint if spec.mode == "resume" else None)
    pulse.flush()
    if pulse.checkpoint != pulse.step or pulse.job_total is None:
        raise RuntimeError(f"training ended at step {pulse.step}, and the newest checkpoint is {pulse.checkpoint}")
    if pulse.job_step < pulse.job_total:
        reason = leaver.reason or "asked to stop"
        return pulse.report(Outcome.PREEMPTED, f"saved at step {pulse.step} and left: {reason}")
    return finish(run, measure, Judge(run, trainer, measure, encoder, base))


def finish(run: Run, measure: Measure, judge: Judge) -> Report:
    """Evaluate a job that is trained and saved; return the last word."""
    pulse = run.pulse
    measure()
    try:
        pulse.judged = judge()
    except Left:
        reason = run.wishes.reason() or "asked to stop"
        return pulse.report(Outcome.PREEMPTED, f"all is trained and saved; left before all was judged: {reason}")
    pulse.flush()
    steps = "the one step is" if pulse.job_total == 1 else f"all {pulse.job_total} steps are"
    message = f"{steps} trained and saved at step {pulse.step}"
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
    spare_needless_work(trainer)
    if run.settings.method == "qlora":
        models.use_full_precision_adapters(trainer.model)
    return trainer


def spare_needless_work(trainer: Any) -> None:
    """Switch off what costs time at each step or save and is never read; it makes up for what our own checks cost.

    Counting floating point operations walks all weights at each step; empty model cards take longer than the weights
    of a small adapter.
    """
    trainer.floating_point_ops = lambda inputs: 0
    trainer.create_model_card = lambda *args, **kwargs: None
    trainer.model.create_or_update_model_card = lambda *args, **kwargs: None


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
