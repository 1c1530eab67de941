"""Saving at a step border: what Hugging Face writes is checked, described, committed; all of it waits for the disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from overnight.disk import checkpoints, files, needs
from overnight.disk.layout import Layout
from overnight.domain import room
from overnight.domain.attempt import Phase
from overnight.domain.checkpoint import checkpoint_name
from overnight.domain.room import Need
from overnight.trainer import callbacks, saving
from overnight.trainer import model as models
from overnight.trainer.failures import LostModelError, NonFiniteError
from overnight.trainer.patience import Patience
from overnight.trainer.run import Run

Write = Callable[[Any, Any], None]
"""How Hugging Face writes a checkpoint: the model, and the trial of a search (none here)."""


class Committer(transformers.TrainerCallback):  # type: ignore[misc]
    """Commits what Hugging Face writes, and lets it write again where the disk refused."""

    def __init__(self, run: Run, lineage: saving.Lineage, base: Path, *, rows_in_epoch: int) -> None:
        self.lineage = lineage
        self.base = base
        self.rows_in_epoch = rows_in_epoch
        self.pulse = run.pulse
        self.faults = run.faults
        self.owns_model = run.owns_model
        self.layout = Layout(Path(run.spec.workspace))
        self.patience = Patience(
            self.layout.root, limit_s=run.disk_wait_s, asked=run.wishes.reason, say=run.pulse.wait_for
        )

    def attach(self, trainer: Any) -> None:
        """Stand around the writing of a trainer: what is written is committed before training goes on."""
        write: Write = trainer._save_checkpoint

        def save(model: Any, trial: Any) -> None:
            staging = Path(trainer.args.output_dir) / checkpoint_name(trainer.state.global_step)
            self.patience.save(
                lambda: self._save(trainer, write, model, trial, staging), self._need(model),
                clear=lambda: clear(staging),
            )  # fmt: skip
            self.pulse.enter(Phase.TRAINING)

        trainer._save_checkpoint = save
        trainer.add_callback(self)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say that a save begins."""
        if not control.should_save:
            return
        if not self.owns_model():  # the folders below would be made anew where the workspace was
            raise LostModelError(
                "The lock on the model is gone: the workspace was moved, or .overnight/model.lock was deleted",
                found="another file, or none, under its name",
                expected="the file that this trainer has locked",
                fix="nothing: the job is tried again from its last checkpoint, where the workspace is now",
            )
        self.pulse.enter(Phase.SAVING)

    def _need(self, model: Any) -> Need:
        """Return what this save takes: what the newest one took, else what the numbers trained say."""
        known = needs.of_newest(checkpoints.newest_complete(self.layout.model))
        if known is not None:
            return known
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        sizes = needs.copied_sizes(self.base)
        basis = "the number of weights that are trained"
        return room.of_numbers(trained, other_bytes=sum(sizes), other_files=len(sizes), basis=basis)

    def _save(self, trainer: Any, write: Write, model: Any, trial: Any, staging: Path) -> None:
        """Write, check, describe and commit one folder."""
        write(model, trial)
        self.pulse.flush()  # the numbers of a committed step are never lost
        self.faults.reach("save", spoil=lambda: callbacks.spoil(model))
        args, state = trainer.args, trainer.state
        bad = models.first_bad_tensor(model)
        if bad is not None:
            raise NonFiniteError(
                f"A weight is no number at step {state.global_step} of this job",
                found=bad,
                expected="finite weights; the checkpoint was not kept",
                fix="look at the rows before this step, or lower train.learning_rate",
            )
        files.write_json_atomically(staging / "training_args.json", plain(args.to_dict()))
        manifest = saving.commit(staging, self.lineage, place_of(args, state, self.rows_in_epoch))
        self.pulse.checkpoint = manifest.step


def clear(staging: Path) -> None:
    """Remove what was written and not committed: it may hold the room that the next try needs."""
    if staging.is_dir():
        files.remove_tree(staging, inside=staging.parent)


def place_of(args: Any, state: Any, rows_in_epoch: int) -> saving.Place:
    """Return where in the job the trainer stands."""
    group = args.per_device_train_batch_size * args.gradient_accumulation_steps
    per_epoch = max(1, state.max_steps // int(args.num_train_epochs))
    epoch, inside = divmod(state.global_step, per_epoch)
    return saving.Place(
        job_step=state.global_step,
        job_total=state.max_steps,
        epoch=epoch,
        step_in_epoch=inside,
        rows=epoch * rows_in_epoch + min(inside * group, rows_in_epoch),
    )


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without anything that changes from attempt to attempt."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key not in ("output_dir", "logging_dir")}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
