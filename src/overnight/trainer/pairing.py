"""Does what was learnt hang on the question? Each answer is tried behind another row's question as well as its own.

Where a file pairs its answers with the wrong questions, its own held-out rows are wrong in the same way, and their loss
goes down all the same: the model learns which answers there are. What it cannot learn is which of them belongs where.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from overnight.domain.encoding import IGNORED


@dataclass(frozen=True, slots=True)
class Pair:
    """An answer behind another row's question."""

    answer: int  # place of the row that the answer belongs to
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pairing:
    """How much better the answers fit their own questions."""

    pairs: int
    gain: float | None  # mean loss of a token behind another question, less that behind its own
    error: float | None

    @classmethod
    def of(cls, gains: Sequence[float]) -> Pairing:
        """Return the mean and its standard error."""
        known = [gain for gain in gains if math.isfinite(gain)]
        if len(known) < 2:
            return cls(len(known), None, None)
        return cls(len(known), statistics.fmean(known), statistics.stdev(known) / math.sqrt(len(known)))


def exchanged(rows: Sequence[dict[str, Any]], *, limit: int) -> list[Pair]:
    """Return each answer behind the question of another row, as far as questions and answers differ and it fits.

    Only rows with one question and one answer take part.
    """
    split = [(place, *parts) for place, row in enumerate(rows) if (parts := _parts(row)) is not None]
    pairs: list[Pair] = []
    for number, (place, question, answer) in enumerate(split):
        for step in range(1, len(split)):
            _, other, theirs = split[(number + step) % len(split)]
            if other != question and theirs != answer and len(other) + len(answer) <= limit:
                labels = [IGNORED] * len(other) + answer
                pairs.append(Pair(place, {"input_ids": [*other, *answer], "labels": labels}))
                break
    return pairs


def _parts(row: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Return question and answer of a row in which all that is learnt stands together; what follows it is no part."""
    labels = row["labels"]
    learnt = [place for place, label in enumerate(labels) if label != IGNORED]
    if not learnt or learnt[0] == 0 or learnt[-1] - learnt[0] + 1 != len(learnt):
        return None
    return list(row["input_ids"][: learnt[0]]), list(row["input_ids"][learnt[0] : learnt[-1] + 1])
