"""Earlier rows read for a job that trains them once more: whole data sets only, never what was held out; no torch.

Which rows is decided in domain/rehearsal.py. Reading is a stream: what is held in memory are numbers, never rows. A row
that has nothing to learn any more gives its place to the next one in rank.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight.disk.layout import Layout
from overnight.domain import rehearsal
from overnight.domain.attempt import Spec
from overnight.domain.config import Settings
from overnight.domain.errors import DataError
from overnight.domain.held_out import is_held_out
from overnight.domain.rehearsal import Source

CHUNK_ROWS = 512
BEAT_EVERY_ROWS = 4096

Take = Callable[[Sequence[bytes]], Sequence[bool]]
"""Takes rows and says of each whether there was something to learn in it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was taken from earlier data sets."""

    wanted: int
    taken: dict[str, int]  # by data set, in their order
    nothing_to_learn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a job replays."""

    share: float
    seed: int
    dataset: str  # of the job
    holdout: float  # of the job
    sources: list[Source]
    layout: Layout

    @property
    def fingerprint(self) -> str:
        """What the choice of rows hangs on, as one hash."""
        return rehearsal.fingerprint(self.share, self.sources)

    def replay(self, own: int, take: Take, on_block: Callable[[], None]) -> Replayed:
        """Hand over the rows that belong beside ``own`` rows of the job. Raises DataError for a damaged data set."""
        numbers = [self._numbers(source, on_block) for source in self.sources]
        wanted = rehearsal.num_wanted(own, self.share)
        tried: list[set[int]] = [set() for _ in self.sources]
        useless: list[set[int]] = [set() for _ in self.sources]
        while True:
            available = [len(all_of) - len(bad) for all_of, bad in zip(numbers, useless, strict=True)]
            quotas = rehearsal.quotas(available, wanted)
            is_new = False
            for index, source in enumerate(self.sources):
                drawn = rehearsal.draw(
                    (number for number in numbers[index] if number not in useless[index]),
                    quotas[index], seed=self.seed, dataset=self.dataset, source=source.dataset,
                )  # fmt: skip
                fresh = set(drawn) - tried[index]
                tried[index] |= fresh
                is_new |= bool(fresh)
                useless[index] |= self._hand_over(source, fresh, take, on_block)
            if not is_new:
                break
        counts = {source.dataset: len(tried[index]) - len(useless[index]) for index, source in enumerate(self.sources)}
        return Replayed(wanted, counts, sum(map(len, useless)))

    def _numbers(self, source: Source, on_block: Callable[[], None]) -> array[int]:
        """Return the numbers of the rows that may be replayed."""
        digest = hashlib.sha256()
        share, left_out = max(self.holdout, source.holdout), set(source.left_out)
        found = array("q")
        for number, line in self._lines(source):
            digest.update(line)
            if not is_held_out(line.rstrip(b"\r\n"), share) and number not in left_out:
                found.append(number)
            if number % BEAT_EVERY_ROWS == 0:
                on_block()
        if digest.hexdigest() != source.dataset:
            raise _damaged(source, f"SHA-256 {digest.hexdigest()}")
        return found

    def _hand_over(self, source: Source, chosen: set[int], take: Take, on_block: Callable[[], None]) -> set[int]:
        """Hand rows over in the order of their file; return the numbers of those with nothing to learn."""
        useless: set[int] = set()
        chunk: list[tuple[int, bytes]] = []

        def pass_on() -> None:
            answers = take([line for _, line in chunk])
            useless.update(number for (number, _), is_good in zip(chunk, answers, strict=True) if not is_good)
            chunk.clear()
            on_block()

        if not chosen:
            return useless
        for number, line in self._lines(source):
            if number in chosen:
                chunk.append((number, line.rstrip(b"\r\n")))
                if len(chunk) == CHUNK_ROWS:
                    pass_on()
        if chunk:
            pass_on()
        return useless

    def _lines(self, source: Source) -> Iterator[tuple[int, bytes]]:
        path: Path = self.layout.rows(source.dataset)
        try:
            with open(path, "rb") as file:
                yield from enumerate(file, start=1)
        except FileNotFoundError as error:
            raise _damaged(source, "it is not there") from error


def rehearsal_of(spec: Spec, settings: Settings) -> Rehearsal | None:
    """Return what the job of an attempt replays, or None."""
    if settings.train.replay == 0 or not spec.rehearsal:
        return None
    return Rehearsal(
        share=settings.train.replay,
        seed=settings.seed,
        dataset=spec.dataset_id,
        holdout=settings.evaluation.holdout,
        sources=[Source.of(value) for value in spec.rehearsal],
        layout=Layout(Path(spec.workspace)),
    )


def _damaged(source: Source, found: str) -> DataError:
    return DataError(
        "An earlier data set whose rows this job replays is not the one that was recorded when the job began",
        found=f".overnight/datasets/{source.dataset}: {found}",
        expected=f"SHA-256 {source.dataset}",
        fix="add its file again, which stores it anew, or queue the job again with overnight retry, without it",
    )
