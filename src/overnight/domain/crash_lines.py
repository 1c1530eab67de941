"""A log's raw lines made readable: colours, progress bars and the labels of launchers taken off."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TEXT_LIMIT = 4000
"""Characters kept of one line; what an error says of itself stands at its beginning."""

SEGMENTS_LIMIT = 40
"""States of a progress bar kept of one line: the first half and the last half."""

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|\x1b[@-_]?")
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), 0x7F, *range(0x80, 0xA0)]) | {9: " "}

_LABELS = re.compile(
    r"""
    \[(?:rank|default|local_rank|r)\ ?(\d+)\]:?\ ?                                  # torchrun
    | \[\d+,(\d+)\]<std(?:err|out)>:\ ?                                             # mpirun
    | \((?:[\w.:<>/-]+\ )?pid=(\d+)(?:,\ ip=[\w.:]+)?\)\ ?                          # ray
    | \ {0,3}(\d{1,4}):\                                                 # srun --label
    | ((?=[\w.-]*\d)[\w.-]{1,64}):\ (?=Traceback\ \(|\ \ +File\ "|[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b)
    | (?P<service>[\w.-]{1,64})\ +\|\ (?!\d)                                        # docker compose
    | \[?\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?:?\ ?(?:std(?:out|err)\ [FP]\ )?
    | [A-Z][a-z]{2}\ [\ \d]\d\ \d\d:\d\d:\d\d\ \S+\ [\w./@-]+\[\d+\]:\ ?            # journal
    """,
    re.VERBOSE,
)
_BOX = re.compile(r"^[│|]\s?(.*?)\s*[│|]?$")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One readable line; a progress bar gives several of the same number."""

    number: int  # in the file, counted from 1
    text: str
    stream: str = ""  # the label that a launcher put before it: which process speaks


def clean(text: str) -> str:
    """Return a text without colours and control characters."""
    if text.isascii() and text.isprintable():
        return text
    return _ANSI.sub("", text).translate(_CONTROL)


def read_lines(raw: Iterable[tuple[int, str]]) -> list[LogLine]:
    """Return numbered raw lines as readable ones, each state of a progress bar a line of its own."""
    found: list[LogLine] = []
    for number, text in raw:
        for segment in _segments(text):
            found.append(_labelled(number, clean(segment[:TEXT_LIMIT])))
    return found


def _segments(text: str) -> list[str]:
    text = text.rstrip("\r\n")
    if "\r" not in text:
        return [text]
    segments = [segment for segment in text.split("\r") if segment.strip()]
    half = SEGMENTS_LIMIT // 2
    return segments if len(segments) <= SEGMENTS_LIMIT else [*segments[:half], *segments[-half:]]


def _labelled(number: int, text: str) -> LogLine:
    stream = ""
    for _ in range(3):
        label = _LABELS.match(text)
        if label is None or label.end() == 0:
            break
        stream = next((group for group in label.groups() if group), stream)
        text = text[label.end() :]
    if text.startswith("│"):
        boxed = _BOX.match(text)
        text = boxed.group(1) if boxed is not None else text
    return LogLine(number, text.rstrip(), stream)
