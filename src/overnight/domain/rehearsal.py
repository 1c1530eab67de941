"""Which earlier rows are trained once more beside a job's own: a share, evenly over earlier data sets, ever the same.

A pure function of the seed, of the job's data set and of the list of earlier ones: a resumed job draws what the killed
one drew. Each row has a rank by hash, so that neither the order of reading nor any library's random numbers matter.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One earlier data set, and what must not be taken from it."""

    dataset: str  # SHA-256 of its rows
    holdout: float = 0.0  # the largest share that was ever held out of it
    left_out: list[int] = field(default_factory=list)  # numbers of rows that gave no number when they were trained

    @classmethod
    def of(cls, value: dict[str, Any]) -> Source:
        """Return a source as it was recorded. Raises KeyError and TypeError where it is none."""
        return cls(
            dataset=str(value["dataset"]),
            holdout=float(value["holdout"]),
            left_out=[int(number) for number in value["left_out"]],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A job that the model was trained on to its end."""

    dataset: str
    holdout: float
    left_out: list[int]
    job: int = 0
    end_step: int = 0  # global step


def sources_of(jobs: Iterable[Trained], *, dataset: str) -> list[Source]:
    """Return each data set that came before ``dataset``, once, in the order of its first training.

    Of one that was trained several times, what was held out or left out in any of them is never replayed.
    """
    found: dict[str, Source] = {}
    for job in jobs:
        if job.dataset == dataset:
            continue
        known = found.get(job.dataset, Source(dataset=job.dataset))
        found[job.dataset] = Source(
            dataset=job.dataset,
            holdout=max(known.holdout, job.holdout),
            left_out=sorted({*known.left_out, *job.left_out}),
        )
    return list(found.values())


def in_the_model(jobs: Iterable[Trained], *, known: Set[int] | None, step: int | None) -> list[Trained]:
    """Return the jobs that the model as it stands was trained on.

    ``known`` are their numbers, as far as anybody can tell; a job that ended beyond ``step``, where the model stands,
    is none: the model went back.
    """
    return [
        job for job in jobs if (known is None or job.job in known) and (step is None or job.end_step <= step)
    ]  # fmt: skip


def num_wanted(own: int, share: float) -> int:
    """Return how many earlier rows make ``share`` of all rows of a job with so many own ones."""
    exact = Fraction(str(share))
    return round(own * exact / (1 - exact))


def quotas(available: Sequence[int], wanted: int) -> list[int]:
    """Return how many rows each earlier data set gives: the same number, and what a small one lacks the others give.

    What is left after an even division goes one by one to the first data sets that have rows left.
    """
    given = [0] * len(available)
    left = min(wanted, sum(available))
    while left:
        open_ones = [index for index, count in enumerate(available) if given[index] < count]
        even = left // len(open_ones)
        if even == 0:
            for index in open_ones[:left]:
                given[index] += 1
            return given
        for index in open_ones:
            more = min(even, available[index] - given[index])
            given[index] += more
            left -= more
    return given


def draw(numbers: Iterable[int], quota: int, *, seed: int, dataset: str, source: str) -> list[int]:
    """Return ``quota`` of these row numbers of an earlier data set, by rank; a larger quota begins with the same."""
    key = hashlib.blake2b(f"{seed}:{dataset}:{source}".encode(), digest_size=32).digest()

    def rank(number: int) -> tuple[bytes, int]:
        return hashlib.blake2b(number.to_bytes(8, "big"), key=key, digest_size=8).digest(), number

    return heapq.nsmallest(quota, numbers, key=rank)


def name_of_row(number: int, *, own: int) -> str:
    """Return how a row is named to people: replayed ones have the numbers behind those of the job's own file."""
    return str(number) if number <= own else f"{number - own} of those replayed from earlier files"


def fingerprint(share: float, sources: Sequence[Source]) -> str:
    """Return the hash of what is replayed beside a job."""
    value = {"share": share, "sources": [asdict(source) for source in sources]}
    return f"blake2b:{hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=32).hexdigest()}"
