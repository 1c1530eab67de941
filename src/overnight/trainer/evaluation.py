"""The loss on held-out rows, measured without a trace: no random number is spent, no weight and no mode is changed."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from overnight.domain.attempt import Phase
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse

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
