"""Ends an attempt whose loss or gradient is no number, before it reaches the weights on disk; names the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from overnight.trainer import model as models
from overnight.trainer.batches import Batch, BatchLog
from overnight.trainer.failures import NonFiniteError
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse

NAMED_ROWS = 20


class Guard(transformers.TrainerCallback):  # type: ignore[misc]
    """Looks at each loss and gradient."""

    def __init__(self, batches: BatchLog, pulse: Pulse, faults: Faults) -> None:
        self.batches = batches
        self.pulse = pulse
        self.faults = faults
        self.tokens = 0  # of the step being made
        self._losses: list[Any] = []
        self._seen: list[Batch] = []
        self._rows: list[int] = []  # of the last step
        self._good: Batch | None = None  # a batch of the last step, all of it well
        self._asked: list[int] = []  # the row that is asked alone

    def watch(self, model: Any) -> None:
        """Keep the loss of each forward pass in training."""
        self.model = model
        model.register_forward_hook(self._keep)

    def _keep(self, module: Any, _: Any, output: Any) -> None:
        if not module.training:
            self._meet_faults(output, self._asked)
            return
        batch = self.batches.next()
        self.faults.reach("rows", len(batch.rows))
        self._meet_faults(output, batch.rows)
        self._losses.append(output.loss.detach())
        self._seen.append(batch)

    def _meet_faults(self, output: Any, rows: Sequence[int]) -> None:
        for number in rows:
            self.faults.reach("row", number, spoil=lambda: output.loss.data.mul_(math.nan))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A new pass over the data."""
        self.batches.forget()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the losses of this step."""
        values = torch.stack(self._losses).tolist() if len(self._losses) > 1 else [self._losses[0].item()]
        seen, self._losses, self._seen = self._seen, [], []
        self.tokens = sum(batch.tokens for batch in seen)
        for value, batch in zip(values, seen, strict=True):
            if not math.isfinite(value) and not batch.is_left_out:
                rows = self._blame(batch)
                raise self._refusal("loss", value, state, args, rows or batch.rows, blamed=rows)
        self._rows = [number for batch in seen for number in batch.rows]
        self._good = next((batch for batch in seen if batch.examples and not batch.is_left_out), self._good)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Look at the gradient of this step, before anything is saved."""
        norm = logs.get("grad_norm")
        if norm is not None and not math.isfinite(norm):
            raise self._refusal("gradient", norm, state, args, self._rows, offset=0)

    def _blame(self, batch: Batch) -> list[int]:
        """Return the rows that give no number when each is asked alone, while the model is well; none where it is not.

        The model is well when its weights are numbers and the last batch that was well gives a number again: where the
        learning rate has driven it away, no row is to blame.
        """
        if not batch.rows or models.first_bad_tensor(self.model) is not None:
            return []
        was_training = self.model.training
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                self.model.eval()
                if self._good is not None and not self._is_well(self._good.examples[:1]):
                    return []
                return [
                    number for number, one in zip(batch.rows, batch.examples, strict=True) if not self._is_well([one])
                ]
        finally:
            self._asked = []
            self.model.train(was_training)

    def _is_well(self, examples: Sequence[dict[str, Any]]) -> bool:
        self._asked = [example["row"] for example in examples]
        inputs = {name: value.to(self.model.device) for name, value in self.batches.collate(list(examples)).items()}
        return math.isfinite(float(self.model(**inputs).loss))

    def _refusal(
        self,
        what: str,
        value: float,
        state: Any,
        args: Any,
        rows: Sequence[int],
        *,
        blamed: Sequence[int] = (),
        offset: int = 1,
    ) -> NonFiniteError:
        step = state.global_step + offset
        in_rows = f", in rows {self.batches.names(rows[:NAMED_ROWS])}" if rows else ""
        epoch = f"{state.epoch:.2f}" if state.epoch is not None else "0"
        error = NonFiniteError(
            f"The {what} is no number at step {step} of this job (epoch {epoch}{in_rows})",
            found=f"{value}" + ("; each of these rows alone gives it, the model itself is well" if blamed else ""),
            expected="a finite number; nothing of this step was saved",
            fix=f"look at these rows, or lower train.learning_rate (now {args.learning_rate:g});"
            " train.nan_rows skip goes on without them"
            if blamed
            else f"look at these rows, or lower train.learning_rate (now {args.learning_rate:g})",
        )
        error.rows = tuple(blamed)
        return error
