"""Naming the cause of somebody's crash: a log of any size, read as a stream, judged by the same rules as our own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from overnight.control.unreadable import unreadable
from overnight.disk import excerpts
from overnight.domain.attempt import FailureKind
from overnight.domain.crash_ends import signal_number
from overnight.domain.crash_verdict import Verdict, classify_log
from overnight.domain.errors import DataError, UsageError
from overnight.domain.printable import shown
from overnight.domain.remedies import remedy_of

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Classified:
    """What a log's run died of, and what helps."""

    verdict: Verdict
    remedy: str

    @property
    def is_crash(self) -> bool:
        """Whether a failure was found."""
        return self.verdict.kind is not FailureKind.NONE

    def to_json(self) -> dict[str, Any]:
        """Return the answer of ``overnight crashes classify --json``."""
        return {
            "kind": self.verdict.kind.value,
            "confidence": self.verdict.confidence,
            "evidence": [{"line": clue.line, "text": clue.text} for clue in self.verdict.evidence],
            "remedy": self.remedy,
            "reason": self.verdict.reason,
        }

    def in_words(self) -> str:
        """Return the same for people."""
        verdict = self.verdict
        lines = [f"{verdict.kind.value}  ({verdict.confidence:.0%} sure: {verdict.reason})"]
        lines += [f"  line {clue.line}: {clue.text}" for clue in verdict.evidence]
        return "\n".join([*lines, f"To do: {self.remedy}"])


def end_given(exit_code: int | None, signal: str | None) -> tuple[int | None, int | None]:
    """Return exit code and signal as numbers. Raises UsageError where they cannot both be, or are none."""
    if exit_code is not None and signal is not None:
        raise UsageError(
            "A run ends in one way", found="--exit-code and --signal", expected="one of them", fix="leave one out"
        )
    if exit_code is not None and not -64 <= exit_code <= 255:
        raise UsageError(
            f"{exit_code} is no exit code",
            found=str(exit_code),
            expected="0 to 255, as a shell tells it (128 + N for signal N)",
            fix="give what echo $? showed",
        )
    if signal is None:
        return exit_code, None
    number = signal_number(signal)
    if number is None:
        raise UsageError(
            f"There is no signal '{shown(signal)}'",
            found=shown(signal),
            expected="a name such as SIGKILL or KILL, or a number from 1 to 64",
            fix="kill -l lists them",
        )
    return None, number


def classify(source: str, *, exit_code: int | None, signal: int | None) -> Classified:
    """Judge a log, "-" for stdin. Raises UsageError where it cannot be read, DataError where it is compressed."""
    try:
        lines = _lines(source)
    except excerpts.CompressedError as error:
        raise DataError(
            f"{shown(source)} is compressed",
            found=f"{error} data",
            expected="the log of a training run as text",
            fix="unpack it first, or let the unpacker write into - (stdin)",
            code="compressed",
        ) from error
    except (OSError, ValueError) as error:
        raise unreadable(source, error, expected="the log of a training run, or - for stdin") from error
    verdict = classify_log(lines, exit_code, signal)
    return Classified(verdict, remedy_of(verdict.kind).words)


def _lines(source: str) -> list[tuple[int, str]]:
    if source == STDIN:
        return excerpts.excerpt(sys.stdin.buffer)
    with open(source, "rb", buffering=0) as reader:
        return excerpts.excerpt(reader)
