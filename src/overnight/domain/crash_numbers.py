"""What a log tells of the training itself: the losses it reports, and whether it went on after a failure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.crash_lines import LogLine

_LOSS = re.compile(
    r"(?<![A-Za-z])(?P<key>(?:[A-Za-z]+[ _/.-]){0,3}loss(?:es)?)[\"']?\)?\s*(?:[:=|]"
    r"|\bis\b|->)?\s*[\[(]?[\"']?(?:tensor\(|np\.float\d+\()?\s*"
    r"(?P<value>[-+]?(?:nan|inf(?:inity)?)\b|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)",
    re.IGNORECASE,
)
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
_SUMMARY = re.compile(r"train_runtime|Run summary|wandb:|best|improved|initial|from inf", re.IGNORECASE)
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
        text = line.text
        if ("loss" not in text and "Loss" not in text and "LOSS" not in text) or _SUMMARY.search(text):
            continue
        values = [(match.group("key").lower(), _number(match.group("value"))) for match in _LOSS.finditer(text[:1500])]
        if not values:
            continue
        norm = _NORM.search(text)
        is_norm_bad = norm is not None and norm.group("value").lower() == "nan"
        is_bad = any(not math.isfinite(value) for _, value in values) or (is_norm_bad and values[0][1] == 0.0)
        is_training = not all(re.match(r"(?:eval|val|test|dev|valid)", key) for key, _ in values)
        found.append(LossLine(at, values[0][1], is_bad or is_norm_bad, is_training))
    return found


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


def _number(text: str) -> float:
    return float(text)


def went_on(lines: Sequence[LogLine], found: Sequence[LossLine], after: int) -> bool:
    """Return whether training went on after a line: more losses or steps, or an end as it should be."""
    if sum(line.at > after for line in found) >= _ENOUGH:
        return True
    steps: set[str] = set()
    bars: dict[str, set[int]] = {}
    for line in lines[after + 1 :]:
        text = line.text
        if _ENDED_WELL.search(text):
            return True
        bar = _BAR.search(text)
        if bar is not None:
            bars.setdefault(bar.group(2), set()).add(int(bar.group(1)))
            if len(bars[bar.group(2)]) > _ENOUGH:
                return True
        elif (step := _STEP.search(text)) is not None and "File" not in text:
            steps.add(step.group(0).lower())
            if len(steps) > _ENOUGH + 1:
                return True
    return False


def ended_well(lines: Sequence[LogLine], after: int = -1) -> bool:
    """Return whether the log says that training ended as it should."""
    return any(_ENDED_WELL.search(line.text) for line in lines[after + 1 :][-400:])
