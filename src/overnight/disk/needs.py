"""What the next save needs and whether its file systems have it: the look at the disk behind domain/room.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from overnight.disk import base_models, space, tensor_headers
from overnight.disk.layout import Layout
from overnight.domain import room
from overnight.domain.checkpoint import CheckpointReport
from overnight.domain.errors import ConfigError
from overnight.domain.room import Need

if TYPE_CHECKING:  # who only looks does not load the settings
    from overnight.domain.config import Settings

COPIED = (".json", ".jinja", ".model", ".txt")
"""Endings of what is copied from a base model into each checkpoint: tokenizer, template, configuration."""


def of_newest(newest: CheckpointReport | None) -> Need | None:
    """Return what a save like the newest checkpoint takes, None where there is none."""
    if newest is None or newest.manifest is None:
        return None
    sizes = [record.bytes for record in newest.manifest.files.values()]
    sizes.append(max(0, newest.bytes - sum(sizes)))  # the manifest
    folders = 1 + len({name.rpartition("/")[0] for name in newest.manifest.files if "/" in name})
    return room.of_checkpoint(sizes, folders=folders, basis=f"the checkpoint of step {newest.step}")


def of_base(layout: Layout, settings: Settings) -> Need | None:
    """Return what a first save takes, by the shapes of the base model; None where they cannot be read."""
    try:
        base = Path(base_models.resolve(layout, settings.base_model))
        shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(base.glob("*.safetensors")):
            shapes.update({name: tensor.shape for name, tensor in tensor_headers.read_header(path).items()})
    except (OSError, ValueError, ConfigError):
        return None
    if not shapes:
        return None
    sizes = copied_sizes(base)
    if settings.method == "full":
        trained, basis = room.all_numbers(shapes), "the shape of the model"
    else:
        trained = room.adapter_numbers(shapes, rank=settings.lora.r, targets=settings.lora.target_modules)
        basis = "the shape of the adapter"
    return room.of_numbers(trained, other_bytes=sum(sizes), other_files=len(sizes), basis=basis)


def copied_sizes(base: Path) -> list[int]:
    """Return the sizes of the small files of a base model that each checkpoint holds as well."""
    sizes: list[int] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(base):
            if entry.name.endswith(COPIED) and entry.is_file():
                sizes.append(entry.stat().st_size)
    return sizes


def places_of(layout: Layout) -> dict[str, Path]:
    """Return where a save writes, by name: checkpoints are written in one folder and kept in the other."""
    return {"the workspace": layout.attempts, "current_model": layout.model}


def trouble(places: Mapping[str, Path], need: Need | None, *, saves: int = 1) -> str | None:
    """Return why so many saves do not fit, or None; one file system is looked at once."""
    for name, path in _distinct(places):
        found = room.trouble(space.space_of(path), need, saves=saves)
        if found is not None:
            return found if name is None else f"{name}: {found}"
    return None


def bytes_to_be_free(need: Need) -> int:
    """Return how many bytes are to be free before a save."""
    return need.bytes + room.RESERVE_BYTES


def inodes_to_be_free(need: Need) -> int:
    """Return how many inodes are to be free before a save."""
    return need.inodes + room.RESERVE_INODES


def _distinct(places: Mapping[str, Path]) -> Iterable[tuple[str | None, Path]]:
    """Return each file system once, with a name where there are several."""
    seen: dict[int, tuple[str, Path]] = {}
    for name, path in places.items():
        with contextlib.suppress(OSError):
            seen.setdefault(os.stat(path).st_dev, (name, path))
    return [(name if len(seen) > 1 else None, path) for name, path in seen.values()]
