"""Proof that the resume happened: which checkpoint it started from, and what the steps trained twice gave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overnight.demo.chart import Curve
from overnight.disk import attempts
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import step_of
from overnight.domain.errors import FailedError

MANY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What a kill cost, and whether what was trained again came out the same."""

    killed_at: int  # the last step that the killed trainer told of
    resumed_from: int
    before: Curve
    after: Curve

    @property
    def trained_twice(self) -> list[int]:
        """The steps that both attempts tell of."""
        again = {step for step, _ in self.after}
        return [step for step, _ in self.before if step in again]

    @property
    def different(self) -> list[int]:
        """The steps trained twice whose losses differ in any digit."""
        first, second = dict(self.before), dict(self.after)
        return [step for step in self.trained_twice if first[step] != second[step]]


def read(workspace: Path, *, killed: str, successor: str) -> Resume:
    """Return what the two attempts left on disk. Raises FailedError where the second is no resume of the first."""
    layout = Layout(workspace)
    spec = attempts.read_spec(layout.attempt(successor))
    before, after = curve(layout.attempt(killed)), curve(layout.attempt(successor))
    start = step_of(Path(spec.checkpoint).name) if spec.checkpoint is not None else None
    if spec.mode != "resume" or not start or not before or not after:
        raise FailedError(
            "The training did not resume after the kill",
            found=f"the next attempt began in mode '{spec.mode}' from {spec.checkpoint or 'the base model'}",
            expected="mode 'resume' from the newest checkpoint",
            fix="overnight events and overnight logs trainer tell what happened",
        )
    if after[0][0] != start + 1:
        raise FailedError(
            "The resumed training did not go on where its checkpoint stood",
            found=f"its first step is {after[0][0]}",
            expected=f"step {start + 1}, after checkpoint {start}",
            fix="overnight logs trainer tells what happened",
        )
    # what it told last may be older than what it had saved: numbers are told a few times a second
    return Resume(killed_at=max(before[-1][0], start), resumed_from=start, before=before, after=after)


def curve(folder: Path) -> Curve:
    """Return an attempt's losses by global step."""
    lines = attempts.read_metrics(folder, limit=MANY)
    return [(int(line["step"]), float(line["loss"])) for line in lines if line.get("loss") is not None]
