"""A smaller forward pass with the same optimizer step: fewer rows at once, more passes, never another product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """How the rows of one optimizer step are divided."""

    rows: int  # in one forward pass
    passes: int  # in one optimizer step

    def __str__(self) -> str:
        return f"{self.rows} x {self.passes}"


def of_settings(settings: dict[str, Any]) -> MicroBatch:
    """Return what frozen settings say."""
    train = settings["train"]
    return MicroBatch(int(train["batch_size"]), int(train["gradient_accumulation_steps"]))


def smaller(batch: MicroBatch) -> MicroBatch | None:
    """Return the next smaller one: at most half the rows, and exactly the same rows in a step; None at one row.

    Where half does not divide the step (5 x 1, 9 x 1), the largest number of rows below it that does is taken.
    """
    step = batch.rows * batch.passes
    rows = next((rows for rows in range(batch.rows // 2, 0, -1) if step % rows == 0), None)
    return MicroBatch(rows, step // rows) if rows is not None else None


def with_batch(settings: dict[str, Any], batch: MicroBatch) -> dict[str, Any]:
    """Return settings with another division of the step."""
    train = {**settings["train"], "batch_size": batch.rows, "gradient_accumulation_steps": batch.passes}
    return {**settings, "train": train}
