"""The loss on held-out rows, measured without a trace: no random number is spent, no weight and no mode is changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from overnight.disk import attempts, paces
from overnight.disk.layout import Layout
from overnight.domain.attempt import Phase, Spec, attempt_id
from overnight.domain.pace import PATIENCE, Kind, Pace, learn, limit, subject_of
from overnight.trainer.alarm import Alarm, TimeIsUp
from overnight.trainer.batches import BatchLog
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse, finite
from overnight.trainer.run import Run

LIMIT_SHARE, LEARNT_SHARE = 0.9, 0.5
"""Of eval_stuck_s, and of what was learnt: the trainer gives up by itself before it is ended for being stuck."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found."""

    loss: float
    rows: int
    seconds: float
    batches: int
    longest_s: float  # of a batch


def evaluate(
    trainer: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    rows: list[dict[str, Any]],
    *,
    batch_size: int,
    alarm: Alarm,
    pulse: Pulse,
    should_leave: Callable[[], bool],
    faults: Faults,
) -> Result | None:
    """Return the mean loss per supervised token, or None where it was abandoned because it was told to leave.

    Raises TimeIsUp when the time is up.
    """
    started = time.monotonic()
    before = pulse.phase
    pulse.enter(Phase.EVALUATING)
    total_loss, total_tokens, longest_s = 0.0, 0, 0.0
    model = trainer.model
    was_training = model.training
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices), alarm.armed():
            model.eval()
            for start in range(0, len(rows), batch_size):
                if should_leave():
                    return None
                began = time.monotonic()
                alarm.next_item()
                faults.reach("eval")
                inputs = collate(rows[start : start + batch_size])
                tokens = int((inputs["labels"][..., 1:] != -100).sum())
                loss, _, _ = trainer.prediction_step(model, inputs, prediction_loss_only=True)
                total_loss += float(loss) * tokens
                total_tokens += tokens
                longest_s = max(longest_s, time.monotonic() - began)
                pulse.beat()
    finally:
        model.train(was_training)
        pulse.enter(before)
    loss = total_loss / total_tokens if total_tokens else math.nan
    return Result(loss, len(rows), time.monotonic() - started, -(-len(rows) // batch_size), longest_s)


class Measure:
    """Evaluates the held-out rows, notes what came of it, and never ends the training."""

    def __init__(self, run: Run, trainer: Any, batches: BatchLog, rows: list[dict[str, Any]]) -> None:
        self.run = run
        self.trainer = trainer
        self.collate = batches.collate
        self.rows = rows
        self.skipped_steps = steps_of_failed_evaluations(run.spec, run.folder)
        self.pace = Pace()  # of the batches evaluated in this attempt

    def alarm(self) -> Alarm:
        """Return an alarm by what batches of this run's evaluations took, and by its steps before there were any."""
        spec, ceiling_s = self.run.spec, self.run.settings.watch.eval_stuck_s
        known = paces.read(Layout(Path(spec.workspace)), subject_of(spec.settings))
        if self.pace.moves:
            known[Kind.EVALUATING] = self.pace
        learnt = [
            limit(
                Kind.EVALUATING, known, ceiling_s=ceiling_s, is_busy=is_busy, stretch=self.run.pulse.stretch,
                patiences=PATIENCE,
            )
            for is_busy in (False, True)
        ]  # fmt: skip
        idle_s, busy_s = (one.seconds * (LEARNT_SHARE if one.is_learnt else LIMIT_SHARE) for one in learnt)
        return Alarm(total_s=ceiling_s * LIMIT_SHARE, idle_s=idle_s, busy_s=busy_s)

    def __call__(self) -> None:
        """Evaluate now, where there is something to evaluate."""
        pulse, settings = self.run.pulse, self.run.settings
        if not self.rows:
            return
        if pulse.step in self.skipped_steps:
            pulse.note(f"evaluation at step {pulse.step} skipped: an earlier attempt ended inside it")
            return
        try:
            result = evaluate(
                self.trainer,
                self.collate,
                self.rows,
                batch_size=settings.train.batch_size,
                alarm=self.alarm(),
                pulse=pulse,
                should_leave=lambda: self.run.wishes.reason() is not None,
                faults=self.run.faults,
            )
        except TimeIsUp as error:
            pulse.note(f"evaluation at step {pulse.step} skipped: {error}")
            return
        if result is None:
            pulse.note(f"evaluation at step {pulse.step} abandoned: asked to stop")
            return
        self.pace = learn(self.pace, took_s=result.longest_s, wall_s=result.seconds, moves=result.batches)
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


def steps_of_failed_evaluations(spec: Spec, folder: Path) -> frozenset[int]:
    """Return the steps at which earlier attempts of this job ended inside an evaluation, without a last word."""
    number = int(spec.attempt.rpartition("-")[2]) if spec.attempt.rpartition("-")[2].isdigit() else 1
    found: set[int] = set()
    for earlier in range(1, number):
        before = folder.with_name(attempt_id(spec.job, earlier))
        heartbeat = attempts.read_heartbeat(before)
        if attempts.read_judged(before):
            continue  # it had evaluated to the end, and ended in the judging
        if heartbeat is not None and heartbeat.phase is Phase.EVALUATING and attempts.read_report(before) is None:
            found.add(heartbeat.step)
    return frozenset(found)
