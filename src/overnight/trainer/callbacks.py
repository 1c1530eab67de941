"""What Overnight does at the trainer's own borders: TRL and Hugging Face are used from outside, through callbacks.

Order inside one step, as Hugging Face calls it::

    on_step_begin           evaluation that is due (after the save of the step before, so nothing is lost in it)
    forward, backward       each forward pass leaves its loss
    on_pre_optimizer_step   a loss that is no number ends the attempt before the optimizer applies it
    on_step_end             asked to leave: save and stop here; every checkpoint gone: save
    on_log                  numbers are told; a gradient that is no number ends the attempt before anything is saved
    on_save                 the folder that Hugging Face wrote is committed

State of its own lies nowhere but in the run: callbacks keep nothing that a resume would have to restore.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Phase, Spec
from overnight.domain.checkpoint import checkpoint_name
from overnight.domain.errors import DiskError
from overnight.trainer import model as models
from overnight.trainer import saving
from overnight.trainer.failures import CorruptError, LostModelError, MismatchError, NonFiniteError
from overnight.trainer.faults import Faults
from overnight.trainer.guard import Guard
from overnight.trainer.pulse import Pulse
from overnight.trainer.run import Run
from overnight.trainer.stock import Stock
from overnight.trainer.wishes import Wishes

HISTORY_LIMIT = 100
"""Entries kept in trainer_state.json; metrics.jsonl has them all."""


class Starter(transformers.TrainerCallback):  # type: ignore[misc]
    """Sets the start: the seed of this job, and on a continued model the optimizer's memory."""

    def __init__(self, spec: Spec, pulse: Pulse) -> None:
        self.spec = spec
        self.pulse = pulse

    def on_train_begin(self, args: Any, state: Any, control: Any, *, optimizer: Any, **_: Any) -> None:
        """Begin a job; a resumed one gets its state from Hugging Face."""
        self.pulse.job_total, self.pulse.job_step = state.max_steps, state.global_step
        if self.spec.mode == "resume":
            return
        if self.spec.checkpoint is not None:
            adopt_optimizer(optimizer, Path(self.spec.checkpoint))
        transformers.set_seed(self.spec.seed)


def adopt_optimizer(optimizer: Any, checkpoint: Path) -> None:
    """Give an optimizer the memory (moments, step counts) of a checkpoint's, and keep its own learning rate.

    Raises MismatchError where they do not fit, CorruptError where the file cannot be read.
    """
    path = checkpoint / "optimizer.pt"
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the reader raises several types for damage
        raise CorruptError(
            "The optimizer's state cannot be read",
            found=f"{path}: {str(error)[:200]}",
            expected="the file that was committed",
            fix="see overnight verify",
        ) from error
    ours = optimizer.state_dict()
    shapes = [[len(group["params"]) for group in one["param_groups"]] for one in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise MismatchError(
            "The optimizer of the checkpoint does not fit the model",
            found=f"groups of {shapes[0]} tensors",
            expected=f"groups of {shapes[1]} tensors",
            fix="see overnight config lock",
        )
    optimizer.load_state_dict({"state": theirs["state"], "param_groups": ours["param_groups"]})


class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
    """Tells numbers: heartbeat, metrics, and a bounded history in trainer_state.json."""

    def __init__(self, pulse: Pulse, guard: Guard) -> None:
        self.pulse = pulse
        self.guard = guard

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more step is made."""
        self.pulse.job_step = state.global_step
        self.pulse.epoch = state.epoch
        self.pulse.measure(tokens=self.guard.tokens)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Tell the numbers of a step."""
        if len(state.log_history) > HISTORY_LIMIT:
            del state.log_history[:-HISTORY_LIMIT]
        if state.log_history:
            state.log_history[-1].pop("num_tokens", None)  # counts from the start of the process, not of the job
        if "loss" not in logs:
            return
        pulse = self.pulse
        pulse.loss, pulse.learning_rate = logs["loss"], logs.get("learning_rate")
        pulse.beat()
        pulse.record(
            {
                "step": pulse.step,
                "job_step": pulse.job_step,
                "epoch": state.epoch,
                "loss": logs["loss"],
                "learning_rate": logs.get("learning_rate"),
                "grad_norm": logs.get("grad_norm"),
                "tokens": self.guard.tokens,
                "at": time.time(),
            }
        )


class Leaver(transformers.TrainerCallback):  # type: ignore[misc]
    """Saves and stops at a step border when asked to leave."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        self.reason: str | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask whether to leave."""
        self.reason = self.wishes.reason()
        if self.reason is not None:
            control.should_save = True
            control.should_training_stop = True


class Keeper(transformers.TrainerCallback):  # type: ignore[misc]
    """Saves at the next step border where somebody removed every checkpoint: there must be one to fall back to."""

    def __init__(self, run: Run) -> None:
        self.pulse = run.pulse
        self.had = run.spec.checkpoint is not None
        self.stock = Stock(Layout(Path(run.spec.workspace)).model)
        self.owns_model = run.owns_model  # else the whole workspace was moved, and nothing of it is missing

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look whether one is left."""
        if self.owns_model() and self.stock.is_lost(had=self.had or self.pulse.checkpoint is not None):
            print("no checkpoint is left in the model's folder: a new one is saved now", flush=True)
            control.should_save = True


class Committer(transformers.TrainerCallback):  # type: ignore[misc]
    """Commits what Hugging Face has written."""

    def __init__(self, run: Run, lineage: saving.Lineage, *, rows_in_epoch: int) -> None:
        self.lineage = lineage
        self.rows_in_epoch = rows_in_epoch
        self.pulse = run.pulse
        self.faults = run.faults
        self.owns_model = run.owns_model

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say that a save begins; Hugging Face writes before it calls on_save."""
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

    def on_save(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Check, describe and commit the newest folder."""
        self.pulse.flush()  # the numbers of a committed step are never lost
        self.faults.reach("save", spoil=lambda: spoil(model))
        bad = models.first_bad_tensor(model)
        if bad is not None:
            raise NonFiniteError(
                f"A weight is no number at step {state.global_step} of this job",
                found=bad,
                expected="finite weights; the checkpoint was not kept",
                fix="look at the rows before this step, or lower train.learning_rate",
            )
        staging = Path(args.output_dir) / checkpoint_name(state.global_step)
        try:
            files.write_json_atomically(staging / "training_args.json", plain(args.to_dict()))
            manifest = saving.commit(staging, self.lineage, place_of(args, state, self.rows_in_epoch))
        except DiskError:
            files.remove_tree(staging, inside=staging.parent)
            raise
        self.pulse.checkpoint = manifest.step
        self.pulse.enter(Phase.TRAINING)


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


class Evaluator(transformers.TrainerCallback):  # type: ignore[misc]
    """Evaluates when it is due, at the border before the next step."""

    def __init__(self, every_steps: int, measure: Callable[[], None]) -> None:
        self.every_steps = every_steps
        self.measure = measure

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate between two steps."""
        if state.global_step > 0 and state.global_step % self.every_steps == 0:
            self.measure()


class Striker(transformers.TrainerCallback):  # type: ignore[misc]
    """Passes the fault point of each step."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def on_step_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Pass the fault point of the step that comes."""
        self.faults.reach("step", state.global_step + 1, spoil=lambda: spoil(model), perturb=lambda: perturb(model))


def spoil(model: Any) -> None:
    """Put a NaN into the last trained tensor."""
    with torch.no_grad():
        [tensor for tensor in model.parameters() if tensor.requires_grad][-1].view(-1)[0] = math.nan


def perturb(model: Any) -> None:
    """Change the last trained tensor a little, as an operation does that is not deterministic."""
    with torch.no_grad():
        [tensor for tensor in model.parameters() if tensor.requires_grad][-1].view(-1)[0] += 1e-3
