"""Python's tracebacks in a log: which exceptions were raised, in which chain, by which process, and where from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from overnight.domain.crash_lines import LogLine

HEADER = "Traceback (most recent call last)"
FRAMES_LIMIT = 60
MESSAGE_LINES = 12
PATIENCE = 150
"""Lines without a frame after which an open traceback is given up."""

_FRAME = re.compile(r'^[\s|]*File "([^"]{1,400})", line \d+, in (.{1,200})$')
_BOXED_FRAME = re.compile(r"^(/\S{1,400}\.py):\d+(?: in (\S{1,200}))?$")
_EXCEPTION = re.compile(r"^(?:\s{0,6}\|\s?)?((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(\(\w+\))?(?::(?:\s(.*))?)?$")
_NAME = re.compile(
    r"(?:Error|Exception|Interrupt|Exit|Timeout|Warning|Failure|Failed|Invalid|NotFound|Expired|Abort(?:ed)?|Group"
    r"|Iteration|Fault|Stop|Refused|Unavailable|Mismatch|Enabled|Required|Denied|Limit|NotImplemented)$"
)
_LOOKS_LOGGED = re.compile(
    r"it/s|s/it|\d%\||^(?:wandb|slurmstepd|srun|INFO|WARNING|ERROR|DEBUG)\b|^\[?\d{4}-\d\d|^[WEIF]\d{4} |^\{'|^\["
    r"|^(?:real|user|sys)\t?\s*\d+m"
)
_IGNORED = ("Exception ignored in", "Error in atexit._run_exitfuncs", "--- Logging error ---")


class Link(StrEnum):
    """How an exception follows from the one before it."""

    DURING = "during"  # raised while the one before was handled
    CAUSE = "cause"  # raised from the one before


_LINKS = {
    "During handling of the above exception, another exception occurred": Link.DURING,
    "The above exception was the direct cause of the following exception": Link.CAUSE,
}


@dataclass(frozen=True, slots=True)
class Raised:
    """One exception as a traceback tells it."""

    type: str  # dotted where the log says so
    message: str
    more: str  # what followed the first line of the message
    first: int  # index of the line where its traceback begins
    last: int  # index of the line with its name
    stream: str
    link: Link | None
    frames: tuple[tuple[str, str], ...]  # (file, function), outermost first
    is_original: bool = False  # told by another exception: it happened in a worker
    is_ignored: bool = False  # Python itself says that it was ignored
    is_in_thread: bool = False
    code: str = ""  # the line of the program that raised it
    is_whole: bool = True  # its traceback's header was seen: the outermost frame is known

    @property
    def name(self) -> str:
        """The last part of its type."""
        return self.type.rpartition(".")[2]

    @property
    def is_uncaught(self) -> bool:
        """Whether it left the program: the outermost frame is the program itself."""
        if not self.frames or not self.is_whole:
            return True
        file, function = self.frames[0]
        return function in ("<module>", "_run_module_as_main", "<lambda>") or "/bin/" in file or self.is_original


@dataclass(slots=True)
class _Open:
    """A traceback whose exception is not read yet."""

    first: int
    is_whole: bool
    is_original: bool = False
    frames: list[tuple[str, str]] = field(default_factory=list)
    silence: int = 0
    code: str = ""


@dataclass(slots=True)
class _Stream:
    """What is known of one process while its lines are read."""

    open: _Open | None = None
    link: Link | None = None
    ignored_at: int = -99
    thread_at: int = -99
    before: str | None = None  # its last line outside of a traceback


def chains(lines: Sequence[LogLine]) -> list[list[Raised]]:
    """Return the exceptions of a log, those that hang together in one list, root first."""
    reader = _Reader(lines)
    for at in range(len(lines)):
        reader.read(at)
    return _grouped(reader.found)


class _Reader:
    """Reads line by line; processes are kept apart by their labels."""

    def __init__(self, lines: Sequence[LogLine]) -> None:
        self.lines = lines
        self.found: list[Raised] = []
        self.streams: dict[str, _Stream] = {}
        self.last_number = 0
        self.begun_at = 0  # index of the first line after a gap in the log

    def read(self, at: int) -> None:
        """Take one line."""
        line = self.lines[at]
        stream = self.streams.setdefault(line.stream, _Stream())
        text = line.text
        if line.number - self.last_number > 1:
            self._jump(at)
        self.last_number = line.number
        if HEADER in text:
            is_original = "Original Traceback" in text
            stream.open = _Open(at, is_whole=True, is_original=is_original)
            return
        stripped = text.strip().rstrip(":")
        if stripped in _LINKS:
            stream.link, stream.open = _LINKS[stripped], None
            return
        frame = _FRAME.match(text) or (_BOXED_FRAME.match(text.strip()) if text.startswith("/") else None)
        if frame is not None:
            self._frame(stream, at, frame.group(1), frame.group(2) or "?")
        elif stream.open is not None:
            self._inside(stream, at, text)
        elif self._is_cut_off(stream, line):
            stream.open = _Open(at, is_whole=False)
            self._inside(stream, at, text)
        elif text.startswith(_IGNORED):
            stream.ignored_at = at
        elif text.startswith("Exception in thread"):
            stream.thread_at = at

    def _jump(self, at: int) -> None:
        """Forget what was open where lines of the log are left out."""
        self.begun_at = at
        for stream in self.streams.values():
            stream.open, stream.link = None, None

    def _is_cut_off(self, stream: _Stream, line: LogLine) -> bool:
        """Return whether a line is the last one of a traceback whose other lines the log does not hold."""
        before, stream.before = stream.before, line.text
        match = _EXCEPTION.match(line.text)
        if match is None or not _NAME.search(match.group(1)) or "Warning" in match.group(1):
            return False
        return before is None or before.startswith(("    ", "╰")) or bool(before.strip(" ^~") == "" and before)

    def _frame(self, stream: _Stream, at: int, file: str, function: str) -> None:
        if stream.open is None:
            stream.open = _Open(at, is_whole=False)
        stream.open.silence, stream.before = 0, ""
        frames = stream.open.frames
        if len(frames) >= FRAMES_LIMIT:
            del frames[FRAMES_LIMIT // 2]
        frames.append((file, function))

    def _inside(self, stream: _Stream, at: int, text: str) -> None:
        opened = stream.open
        assert opened is not None
        match = _EXCEPTION.match(text)
        if match is None or not _is_exception(match, opened):
            opened.silence += 1
            if text.startswith("    ") and text.strip(" ^~"):
                opened.code = text.strip()[:300]
            if opened.silence > PATIENCE:
                stream.open = None
            return
        self.found.append(
            Raised(
                type=match.group(1),
                message=match.group(3) or "",
                more=self._more(at),
                first=opened.first,
                last=at,
                stream=self.lines[at].stream,
                link=stream.link,
                frames=tuple(opened.frames),
                is_original=opened.is_original,
                is_ignored=opened.first - stream.ignored_at <= 2,
                is_in_thread=opened.first - stream.thread_at <= 2,
                code=opened.code,
                is_whole=opened.is_whole,
            )
        )
        stream.open, stream.link = None, None

    def _more(self, at: int) -> str:
        """Return what follows the first line of a message and still belongs to it."""
        stream, told = self.lines[at].stream, list[str]()
        for line in self.lines[at + 1 : at + 1 + 2 * MESSAGE_LINES]:
            if line.stream != stream:
                continue
            text = line.text
            if HEADER in text or _FRAME.match(text) or _LOOKS_LOGGED.search(text) or len(told) >= MESSAGE_LINES:
                break
            if text.strip().rstrip(":") in _LINKS:
                break
            told.append(text[:600])
        return "\n".join(told)


def _is_exception(match: re.Match[str], opened: _Open) -> bool:
    name = match.group(1).rpartition(".")[2]
    if _NAME.search(name) or name in ("KeyboardInterrupt", "SystemExit"):
        return True
    is_right_after_frames = bool(opened.frames) and opened.silence <= 3
    return is_right_after_frames and name[:1].isupper() and ("." in match.group(1) or match.group(3) is not None)


def _grouped(found: Sequence[Raised]) -> list[list[Raised]]:
    groups: list[list[Raised]] = []
    newest: dict[str, list[Raised]] = {}
    for raised in found:
        group = newest.get(raised.stream)
        is_told_by_last = raised.is_original and group is not None and raised.first - group[-1].last <= 12
        if group is not None and (raised.link is not None or is_told_by_last):
            group.append(raised)
        else:
            group = [raised]
            groups.append(group)
            newest[raised.stream] = group
    return groups
