"""What Overnight does at the trainer's own borders: TRL and Hugging Face are used from outside, through callbacks.

Order inside one step, as Hugging Face calls it::

    on_step_begin           evaluation that is due (after the save of the step before, so nothing is lost in it)
    forward, backward       each forward pass leaves its loss
    on_pre_optimizer_step   a loss that is no number ends the attempt before the optimizer applies it
    on_step_end             asked to leave: save and stop here; every checkpoint gone: save
    on_log                  numbers are told; a gradient that is no number ends the attempt before anything is saved
    (save)                  Hugging Face writes a folder, and it is committed (committer.py)

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

from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.trainer.failures import CorruptError, MismatchError
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
