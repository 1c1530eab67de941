"""Which rows each forward pass holds: the collator is wrapped, so that a bad number can be traced to its rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass holds."""

    rows: list[int]  # numbers of the stored rows; empty where rows are packed
    tokens: int


class BatchLog:
    """A collator that remembers what it collated until the model has seen it.

    The trainer collates ahead (one batch, or one group of gradient accumulation) and computes in the same order.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate
        self._ahead: deque[Batch] = deque()

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate a batch and remember what it holds."""
        rows = [example["row"] for example in examples] if "row" in examples[0] else []
        self._ahead.append(Batch(rows, sum(len(example["input_ids"]) for example in examples)))
        return self.collate(examples)

    def next(self) -> Batch:
        """Return what the forward pass that comes next holds."""
        return self._ahead.popleft() if self._ahead else Batch([], 0)

    def forget(self) -> None:
        """Drop what was collated and will not be computed: a new pass over the data begins."""
        self._ahead.clear()
