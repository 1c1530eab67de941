"""The loss on held-out rows, measured without a trace: no random number is spent, no weight and no mode is changed."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from overnight.disk import attempts
from overnight.domain.attempt import Phase, Spec, attempt_id
from overnight.trainer.batches import BatchLog
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse, finite
from overnight.trainer.run import Run

LIMIT_SHARE = 0.9
"""Of eval_stuck_s: the trainer gives up by itself before it is ended for being stuck."""


class EvaluationTimeout(Exception):
    """An evaluation took longer than it may."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found."""

    loss: float
    rows: int
    seconds: float


def evaluate(
    trainer: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    rows: list[dict[str, Any]],
    *,
    batch_size: int,
    limit_s: float,
    pulse: Pulse,
    should_leave: Callable[[], bool],
    faults: Faults,
) -> Result | None:
    """Return the mean loss per supervised token, or None where it was abandoned: told to leave, or out of time.

    Raises EvaluationTimeout when the time is up.
    """
    started = time.monotonic()
    before = pulse.phase
    pulse.enter(Phase.EVALUATING)
    total_loss, total_tokens = 0.0, 0
    model = trainer.model
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices), _time_limit(limit_s):
            model.eval()
            for start in range(0, len(rows), batch_size):
                if should_leave():
                    return None
                faults.reach("eval")
                inputs = collate(rows[start : start + batch_size])
                tokens = int((inputs["labels"][..., 1:] != -100).sum())
                loss, _, _ = trainer.prediction_step(model, inputs, prediction_loss_only=True)
                total_loss += float(loss) * tokens
                total_tokens += tokens
                pulse.beat()
    finally:
        model.train(was_training)
        pulse.enter(before)
    loss = total_loss / total_tokens if total_tokens else math.nan
    return Result(loss, len(rows), time.monotonic() - started)


@contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Raise EvaluationTimeout inside the block when the time is up, also out of a call that waits."""

    def end(_: int, __: FrameType | None) -> None:
        raise EvaluationTimeout(f"it took longer than {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
        limit_s = settings.watch.eval_stuck_s * LIMIT_SHARE
        try:
            result = evaluate(
                self.trainer,
                self.collate,
                self.rows,
                batch_size=settings.train.batch_size,
                limit_s=limit_s,
                pulse=pulse,
                should_leave=lambda: self.run.wishes.reason() is not None,
                faults=self.run.faults,
            )
        except EvaluationTimeout as error:
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
