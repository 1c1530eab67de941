"""Which rows each forward pass holds: the collator is wrapped, to trace bad numbers to rows, and to leave rows out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from overnight.domain.rehearsal import name_of_row


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass holds."""

    rows: list[int]  # numbers of the stored rows that are trained; empty where rows are packed
    tokens: int
    examples: list[dict[str, Any]] = field(default_factory=list)  # of these rows
    is_left_out: bool = False  # nothing in it is trained


class BatchLog:
    """A collator that remembers what it collated until the model has seen it, and leaves rows out.

    The trainer collates ahead (one batch, or one group of gradient accumulation) and computes in the same order. A row
    that is left out keeps its place: in its stead stands one that holds nothing to learn, so that every other row
    comes in the same step as without it.
    """

    def __init__(
        self,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        left_out: Iterable[int] = (),
        *,
        blank: int = 0,
        own: int | None = None,  # rows of the job's own file; what is replayed has higher numbers
    ) -> None:
        self.collate = collate
        self.own = own
        self.left_out = frozenset(left_out)
        self._nothing = {"input_ids": [blank, blank], "labels": [-100, -100]}
        self._ahead: deque[Batch] = deque()

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate a batch and remember what it holds."""
        has_rows = "row" in examples[0]
        kept = [one for one in examples if not has_rows or one["row"] not in self.left_out]
        self._ahead.append(
            Batch(
                rows=[one["row"] for one in kept] if has_rows else [],
                tokens=sum(len(one["input_ids"]) for one in kept),
                examples=kept if has_rows else [],
                is_left_out=not kept,
            )
        )
        if len(kept) < len(examples):
            examples = [{**one, **self._nothing} if one["row"] in self.left_out else one for one in examples]
        return self.collate(examples)

    def names(self, rows: Iterable[int]) -> str:
        """Return rows as they are named to people."""
        return ", ".join(name_of_row(number, own=number if self.own is None else self.own) for number in rows)

    def next(self) -> Batch:
        """Return what the forward pass that comes next holds."""
        return self._ahead.popleft() if self._ahead else Batch([], 0)

    def forget(self) -> None:
        """Drop what was collated and will not be computed: a new pass over the data begins."""
        self._ahead.clear()
