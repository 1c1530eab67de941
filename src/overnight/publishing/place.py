"""Where the model stands, as versions see it: which version is in use, what was trained on it, what else is kept."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.database.connection import Connection
from overnight.disk import config, files, locked, transition
from overnight.disk.layout import Layout
from overnight.domain.config import check, flatten
from overnight.domain.version import BASE
from overnight.publishing import lineage

_KEPT = re.compile(r"on-(base|v[0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the model stands."""

    version: str | None  # in use; None: the base model of the workspace
    checkpoints: list[str]  # names of those trained on it, newest first
    jobs: list[int]  # trained on it

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.version or BASE


def find(layout: Layout, connection: Connection) -> Place:
    """Return where the model stands."""
    return Place(
        version=locked.version_in_use(layout),
        checkpoints=transition.checkpoint_names(layout.model),
        jobs=lineage.jobs_since_change(layout, connection),
    )


def keep_name(layout: Layout, version: str | None) -> str:
    """Return the folder of the history for what leaves when another version is put in use by a rollback."""
    return f"on-{version or BASE}.{1 + max(_numbers(layout, version), default=0)}"


def kept(layout: Layout, version: str | None) -> str | None:
    """Return the folder of the history that holds a version as it was last left, or None."""
    newest = max(_numbers(layout, version), default=None)
    return f"on-{version or BASE}.{newest}" if newest is not None else None


def made_from(version: str) -> str:
    """Return the folder of the history that holds the checkpoints from which a version was made."""
    return f"before-{version}"


def belongings(layout: Layout, version: str) -> list[Path]:
    """Return the folders of the history that are a version's own."""
    names = [made_from(version), *(f"on-{version}.{number}" for number in _numbers(layout, version))]
    return [layout.history / name for name in names if (layout.history / name).is_dir()]


def _numbers(layout: Layout, version: str | None) -> list[int]:
    try:
        found = [_KEPT.fullmatch(path.name) for path in layout.history.iterdir()]
    except OSError:
        return []
    return [int(match[2]) for match in found if match is not None and match[1] == (version or BASE)]


def saved_state(layout: Layout, folder: str) -> dict[str, Any]:
    """Return what was kept with the checkpoints of a folder of the history; empty where it cannot be read."""
    try:
        value = files.read_json(layout.history / folder / transition.SAVED)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def to_save(layout: Layout, place: Place, *, step: int, at: float) -> dict[str, Any]:
    """Return what is kept with the checkpoints that leave."""
    return {
        "schema": 1,
        "version": place.version,
        "step": step,
        "left_at": at,
        "jobs": place.jobs,
        "config": transition.text_of(layout.config),
        "config_lock": transition.text_of(layout.config_lock),
    }


def config_with(layout: Layout, values: dict[str, Any], *, like: str | None = None) -> str:
    """Return config.json's text with some keys changed and everything else as it is.

    Where ``like`` is a text that means the same, it is that very text. Raises ConfigError where the file is broken.
    """
    raw = config.read_raw(layout.config)
    changed = copy.deepcopy(raw)
    settings, _ = check(raw)
    current = flatten(settings.to_json()) if settings is not None else flatten(raw)
    for key, value in values.items():
        if current.get(key) != value:
            _assign(changed, key, value)
    if changed == raw:
        return transition.text_of(layout.config) or files.json_bytes(raw).decode()
    if like is not None and _meaning(like) == changed:
        return like
    return files.json_bytes(changed).decode("utf-8")


def _meaning(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return None


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            inner = values[section] = {}
        values = inner
    values[name] = value
