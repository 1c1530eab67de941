"""What a log tells of the training itself: the losses it reports, and whether it went on after a failure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.crash_lines import LogLine

_VALUE = re.compile(
    r"(?:es)?[\"']?\)?\s*(?:[:=|]|\bis\b|->)?\s*[\[(]?[\"']?(?:tensor\(|np\.float\d+\()?\s*"
    r"([-+]?(?:nan|inf(?:inity)?)\b|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)"
)
_HELD_OUT = re.compile(r"\b(?:eval|val|test|dev|valid|validation)[ _/.-](?:[a-z]+[ _/.-])?$")
_NORM = re.compile(
    r"grad(?:ient)?[ _]?norm[\"']?\s*[:=]?\s*[\"']?(?:tensor\()?(?P<value>nan"
    r"|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)",
    re.IGNORECASE,
)
_STEP = re.compile(
    r"\b(?:global[ _]?)?(?:step|iteration|iter|epoch|batch|update)s?\b[\"']?\s*[:=\[(/]?\s*(\d+)", re.IGNORECASE
)
_BAR = re.compile(r"\b(\d+)/(\d+) \[[\d:]+<")
_ENDED_WELL = re.compile(
    r"['\"]?train_runtime['\"]?|[Tt]raining (?:is )?(?:completed?"
    r"|finished|done|ended)\b|exits successfully|[Tt]raining took|[Ff]inished training"
    r"|[Mm]odel (?:is |was )?saved (?:to|in|at)"
    r"|[Ss]aved (?:final )?(?:model|adapter|checkpoint) (?:to"
    r"|in|at)|JobState=COMPLETED|`Trainer\.fit` stopped"
)
_NO_REPORT = ("train_runtime", "run summary", "wandb:", "best", "improved", "initial", "from inf")
_DIVERGED = 1000.0
_ENOUGH = 2


@dataclass(frozen=True, slots=True)
class LossLine:
    """A line that reports a loss."""

    at: int
    value: float
    is_bad: bool  # no number, or its gradients are none
    is_training: bool = True


def losses(lines: Sequence[LogLine]) -> list[LossLine]:
    """Return the lines that report a loss, in order."""
    found: list[LossLine] = []
    for at, line in enumerate(lines):
        text = line.text[:1500].lower()
        if "loss" not in text or any(word in text for word in _NO_REPORT):
            continue
        values, is_training = _reported(text)
        if not values:
            continue
        norm = _NORM.search(text) if "norm" in text else None
        is_norm_bad = norm is not None and norm.group("value") == "nan"
        is_bad = is_norm_bad or not all(math.isfinite(value) for value in values)
        found.append(LossLine(at, values[0], is_bad, is_training))
    return found


def _reported(text: str) -> tuple[list[float], bool]:
    """Return the losses of a line, and whether one of them is of training."""
    values: list[float] = []
    is_training = False
    at = text.find("loss")
    while at >= 0:
        value = _VALUE.match(text, at + 4)
        if value is not None:
            values.append(float(value.group(1)))
            is_training = is_training or _HELD_OUT.search(text[max(at - 30, 0) : at]) is None
        at = text.find("loss", at + 4)
    return values, is_training


def divergence(found: Sequence[LossLine]) -> LossLine | None:
    """Return where a loss that never came back was lost; None where the last ones are numbers."""
    newest = [line for line in found if line.is_training] or list(found)
    if not newest or not newest[-1].is_bad:
        return _explosion(newest)
    first = newest[-1]
    num_bad = 0
    for line in reversed(newest):
        if not line.is_bad:
            break
        first, num_bad = line, num_bad + 1
    is_only_norm = all(math.isfinite(line.value) and line.value != 0.0 for line in newest[-num_bad:])
    return first if num_bad >= (3 if is_only_norm else 1) else None


def _explosion(newest: Sequence[LossLine]) -> LossLine | None:
    """Return where a loss grew a thousandfold and stayed there."""
    if len(newest) < 6:
        return None
    early = sorted(abs(line.value) for line in newest[: len(newest) // 3])[len(newest) // 6]
    late = [abs(line.value) for line in newest[-3:]]
    is_lost = early > 0 and min(late) > _DIVERGED * max(early, 0.01) and min(late) > 100
    return newest[-3] if is_lost else None


def last_moved(lines: Sequence[LogLine], found: Sequence[LossLine]) -> int:
    """Return the index before which no failure was the end: training went on, or ended as it should; -1 without such.

    After it there are at most a loss, a few steps, or the last states of a bar: what other processes still say.
    """
    num_losses = 0
    loss_lines = {line.at for line in found}
    steps: set[str] = set()
    bars: dict[str, set[int]] = {}
    for at in range(len(lines) - 1, -1, -1):
        text = lines[at].text
        num_losses += at in loss_lines
        if num_losses >= _ENOUGH or _ENDED_WELL.search(text):
            return at
        bar = _BAR.search(text)
        if bar is not None:
            seen = bars.setdefault(bar.group(2), set())
            seen.add(int(bar.group(1)))
            if len(seen) > _ENOUGH:
                return at
        elif (step := _STEP.search(text)) is not None and "File" not in text:
            steps.add(step.group(0).lower())
            if len(steps) > _ENOUGH + 1:
                return at
    return -1


def ended_well(lines: Sequence[LogLine], after: int = -1) -> bool:
    """Return whether the log says that training ended as it should."""
    return any(_ENDED_WELL.search(line.text) for line in lines[after + 1 :][-400:])
