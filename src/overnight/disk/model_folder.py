"""A base model's folder, looked into without loading: whether config.json and the weights' headers fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.disk.tensor_headers import read_header
from overnight.domain.model_sizes import absurdity

CONFIG_LIMIT_BYTES = 16 << 20

Shapes = dict[str, tuple[int, ...]]


def look(folder: Path) -> tuple[Shapes, str | None]:
    """Return the shapes of a folder's weights, and what in it cannot be true, in words. Errors of the disk pass."""
    shapes: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            shapes |= {name: tensor.shape for name, tensor in read_header(path).items()}
        except ValueError as error:
            return shapes, f"{path.name}: {error}"
    try:
        return shapes, absurdity(_config(folder / "config.json"), shapes)
    except (ValueError, RecursionError) as error:
        return shapes, f"config.json: {error or 'nested too deeply'}"


def _config(path: Path) -> dict[str, Any]:
    with files.open_regular(path, follow_links=True) as file:
        if len(data := file.read(CONFIG_LIMIT_BYTES + 1)) > CONFIG_LIMIT_BYTES:
            raise ValueError(f"it is larger than {CONFIG_LIMIT_BYTES >> 20} MiB")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value
