"""What the command line prints: one JSON object or plain words on stdout, diagnostics on stderr, nothing that can hurt.

Names and messages come from files: control characters in them are shown, never sent to the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from overnight.domain.errors import LockedError, OvernightError
from overnight.domain.printable import shown

SCHEMA = 1
BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"


def prepare_streams() -> None:
    """Let no name of a file, whatever bytes it has, keep a message from being printed."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Let the interpreter end in silence where the reader of stdout has left."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object with its schema number."""
    print(json.dumps({"schema": SCHEMA, **value}, ensure_ascii=True, allow_nan=False), flush=True)


def print_text(text: str) -> None:
    """Print lines for people; a name in them that may hold line breaks has to be made safe before."""
    print(shown(text, keep="\n"), flush=True)


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print."""
    return shown(text, keep="\t")


def print_safe(text: str) -> None:
    """Print what was made safe part by part, and perhaps coloured."""
    print(text, flush=True)


def say(text: str) -> None:
    """Print a diagnostic on stderr."""
    print(shown(text, keep="\n"), file=sys.stderr, flush=True)


def uses_color() -> bool:
    """Return whether stdout is a terminal that is meant to be coloured."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def colored(text: str, color: str) -> str:
    """Return a text, made safe, in a colour where colours are wanted."""
    safe = shown(text)
    return f"\x1b[{color}m{safe}\x1b[0m" if uses_color() else safe


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return columns as wide as their widest cell; every cell is made safe."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[at]) for line in [list(head), *cells]) for at in range(len(head))]
    lines = [list(head), *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def error_json(error: OvernightError) -> dict[str, Any]:
    """Return an error as the answer of a command that was asked for JSON."""
    value: dict[str, Any] = {
        "code": error.code or type(error).__name__,
        "message": error.what,
        "found": error.found,
        "expected": error.expected,
        "fix": error.fix,
        "exit_code": int(error.exit_code),
    }
    return {**value, "why": error.why} if isinstance(error, LockedError) else value
