"""Logs: rotated by size, free of control characters and of secrets, never a reason to stop.

What a trainer prints goes into its attempt's folder, whatever becomes of the daemon; from there it is pumped, line by
line, into logs/trainer.log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from overnight.disk import files
from overnight.disk.crashes import CUT, from_next_line
from overnight.domain.printable import shown
from overnight.domain.secrets import without_secrets

LOG_BYTES = 8 << 20
LOG_FILES = 5
PUMP_BYTES = 256 << 10
"""What is pumped at once: a chatty trainer must not slow the loop down."""

SOURCE_BYTES = 32 << 20
"""A trainer's own log is emptied beyond this, once it is pumped."""

LINE_BYTES = 16 << 10
WRITABLE = 0o222
FINISHED = 0o444
SCHEMA = 1


class Handler(RotatingFileHandler):
    """A rotating log file that keeps quiet where the disk refuses; standard error follows it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        """Open the file; what is no file under its name makes way: a FIFO would hold up whoever writes."""
        with contextlib.suppress(OSError):
            files.make_way(Path(self.baseFilename))
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: a full disk must not disturb the run; the history and the status tell of it."""

    def doRollover(self) -> None:
        """Start a new file."""
        follows = self.stream is not None and _is_same(self.stream.fileno(), 2)
        super().doRollover()
        if follows and self.stream is not None:
            os.dup2(self.stream.fileno(), 2)
            os.dup2(self.stream.fileno(), 1)


def _is_same(one: int, other: int) -> bool:
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = without_secrets(shown(record.message))
        return super().formatMessage(record)


def open_log(name: str, path: Path) -> logging.Logger:
    """Return a logger that writes to a file of logs/, and to standard error where that is a terminal."""
    log = logging.getLogger(f"overnight.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    targets: list[logging.Handler] = [Handler(path)]
    if sys.stderr is not None and sys.stderr.isatty():
        targets.append(logging.StreamHandler())
    for handler in targets:
        handler.setFormatter(_formatter())
        log.addHandler(handler)
    return log


def add_line(path: Path, message: str, *, level: int = logging.WARNING) -> None:
    """Write one line into a log that is seldom written; silently not, where the disk refuses."""
    with contextlib.suppress(OSError), contextlib.closing(Handler(path)) as handler:
        handler.setFormatter(_formatter())
        handler.handle(
            logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level)})
        )


def _formatter() -> logging.Formatter:
    return _Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")


class Pump:
    """Copies what trainers print into logs/trainer.log; the place reached survives the daemon."""

    def __init__(self, target: Path, memory: Path) -> None:
        self._memory = memory
        self._handler = Handler(target)
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._rest = b""
        self.attempt, self._offset, self._inode = self._remembered()

    def pump(self, source: Path, attempt: str) -> bool:
        """Copy what is new in an attempt's log; return whether anything was."""
        if attempt != self.attempt:
            self._flush()
            self.attempt, self._offset, self._inode = attempt, 0, None
            self._emit(f"--- attempt {attempt}")
        try:
            with files.open_regular(source, follow_links=False) as file:
                facts = os.fstat(file.fileno())
                size = facts.st_size
                if self._inode not in (None, facts.st_ino):
                    self._offset = size  # it was finished: what stood in it had been copied
                elif size < self._offset:
                    self._offset = 0  # it was emptied
                self._inode = facts.st_ino
                file.seek(self._offset)
                data = file.read(PUMP_BYTES)
        except OSError:
            return False
        if data:
            self._offset += len(data)
            self._lines(data)
            self._remember()
        elif self._rest:
            self._flush()  # a prompt or a progress bar without an end of line
        if self._offset >= SOURCE_BYTES and self._offset == size:
            os.truncate(source, 0)
        return bool(data)

    def is_drained(self, source: Path) -> bool:
        """Return whether all of the log that is copied now was copied."""
        try:
            facts = os.lstat(source)
        except OSError:
            return True
        return facts.st_size == self._offset or self._inode not in (None, facts.st_ino)

    def close(self) -> None:
        """Close the target; what was not yet pumped is found again."""
        self._handler.close()

    def _lines(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._emit(line.decode("utf-8", "backslashreplace"))
        if len(self._rest) > LINE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rest:
            self._emit(self._rest.decode("utf-8", "backslashreplace"))
            self._rest = b""

    def _emit(self, line: str) -> None:
        text = without_secrets(shown(line[:LINE_BYTES], keep="\t"))
        self._handler.handle(logging.LogRecord("trainer", logging.INFO, "", 0, text, None, None))

    def _remembered(self) -> tuple[str, int, int | None]:
        try:
            value = files.read_json(self._memory)
            inode = value.get("inode")
            return str(value["attempt"]), int(value["offset"]), int(inode) if inode is not None else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "", 0, None

    def _remember(self) -> None:
        offset = self._offset - len(self._rest)
        value = {"schema": SCHEMA, "attempt": self.attempt, "offset": offset, "inode": self._inode}
        files.write_json_atomically(self._memory, value)


def finish(path: Path, limit_bytes: int) -> None:
    """Cut the log of an ended attempt to its last bytes and strike the secrets out of it, once.

    That it may not be written any more is the sign that it was done. No error where it is not there.
    """
    try:
        with files.open_regular(path, follow_links=False) as file:
            facts = os.fstat(file.fileno())
            if not facts.st_mode & WRITABLE:
                return
            file.seek(max(0, facts.st_size - limit_bytes))
            data = file.read(limit_bytes)
    except OSError:  # it is not there, or no file of ours any more
        return
    if facts.st_size > limit_bytes:
        data = CUT + from_next_line(data)
    text = without_secrets(data.decode("utf-8", "surrogateescape"))
    files.write_atomically(path, text.encode("utf-8", "surrogateescape"), mode=FINISHED)
