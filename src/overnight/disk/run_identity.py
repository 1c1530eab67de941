"""Whose checkpoints these are: a random name for the history of one model folder, carried in each manifest.

``.overnight/run.json`` beside the model's folder holds it. Where that file is lost, the newest manifest tells it again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from overnight.disk import files

SCHEMA = 1


def read(model: Path) -> str | None:
    """Return the identity of a model folder, or None where none was given yet or nobody can tell."""
    try:
        value = files.read_json(_file(model))
        identity = value["run"] if value["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity if isinstance(identity, str) and identity else None


def ensure(model: Path, *, told_by: Iterable[str]) -> str:
    """Return the identity of a model folder; where there is none, take the first that is told, or make one.

    A folder outside a workspace has none: "". Raises DiskError.
    """
    known = read(model)
    if known is not None:
        return known
    if not _file(model).parent.is_dir():
        return ""
    identity = next((told for told in told_by if told), None) or secrets.token_hex(16)
    files.write_json_durably(_file(model), {"schema": SCHEMA, "run": identity})
    return identity


def _file(model: Path) -> Path:
    return model.parent / ".overnight" / "run.json"
