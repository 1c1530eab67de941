"""Evidence of crashes: crashes/<attempt>/, a verdict and copies of what the attempt left; bounded, safe to read.

::

    verdict.json     what it was, what helps, what is done about it; written last: without it the folder is not finished
    trainer.log      the end of what the trainer printed
    heartbeat.json · report.json · hang.json · process.json · stacks.txt     where the attempt left them

Control characters are escaped and secrets struck out: people open these files, and send them around.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.domain.printable import shown
from overnight.domain.secrets import strike_values, without_secrets

VERDICT = "verdict.json"
LOG = "trainer.log"
LOG_TAIL_BYTES = 64 << 10
COPY_LIMIT_BYTES = 256 << 10
CUT = b"[the beginning was cut off]\n"
COPIED = ("heartbeat.json", "report.json", "hang.json", "process.json", "stacks.txt")
SCHEMA = 1


def keep(crashes: Path, attempt_folder: Path, identity: str, verdict: dict[str, Any]) -> bool:
    """Keep the evidence of one attempt, once; return whether it was not there. Raises DiskError."""
    target = crashes / identity
    if (target / VERDICT).exists():
        return False
    files.make_directory(target)
    log = read_tail(attempt_folder / LOG, LOG_TAIL_BYTES)
    if log:
        files.write_durably(target / LOG, _safe(log))
    for name in COPIED:
        data = read_tail(attempt_folder / name, COPY_LIMIT_BYTES)
        if data:
            files.write_durably(target / name, _safe(_struck(data) if name.endswith(".json") else data))
    files.write_durably(target / VERDICT, without_secrets(_struck(files.json_bytes(verdict)).decode()).encode())
    return True


def read_tail(path: Path, limit: int) -> bytes:
    """Return the last bytes of a file, whole lines where it was cut; nothing where it cannot be read."""
    try:
        with files.open_regular(path, follow_links=False) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except (OSError, ValueError):
        return b""
    return data if size <= limit else CUT + from_next_line(data)


def from_next_line(data: bytes) -> bytes:
    """Return what follows the first end of line; all of it where there is none, as of a progress bar."""
    return data.partition(b"\n")[2] or data


def safe_text(data: bytes) -> str:
    """Return what a trainer printed, fit for people: control characters escaped, secrets struck out."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
    return without_secrets(shown(text, keep="\n\t"))


def _struck(data: bytes) -> bytes:
    """Return JSON without the secrets in its texts; what is cut, or no JSON, as it is."""
    try:
        return files.json_bytes(strike_values(json.loads(data)))
    except (ValueError, RecursionError):
        return data


def _safe(data: bytes) -> bytes:
    return safe_text(data).encode("utf-8", "backslashreplace")


def identities(crashes: Path) -> list[str]:
    """Return the names of all evidence, finished or not."""
    try:
        return sorted(entry.name for entry in os.scandir(crashes) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def read_verdict(crashes: Path, identity: str) -> dict[str, Any] | None:
    """Return a verdict, or None where it is not there or damaged."""
    try:
        value = files.read_json(crashes / identity / VERDICT)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == SCHEMA else None


def contents(crashes: Path, identity: str) -> list[str]:
    """Return the names of the files of one crash."""
    try:
        return sorted(entry.name for entry in os.scandir(crashes / identity) if entry.is_file(follow_symlinks=False))
    except OSError:
        return []
