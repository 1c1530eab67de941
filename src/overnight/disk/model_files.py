"""The files of a model's folder: which hold its weights, which stand beside them, and weights written anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overnight.disk import files
from overnight.disk.fingerprints import PARTS
from overnight.disk.tensor_headers import Tensor, read_header
from overnight.domain.errors import ConfigError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_ENDINGS = (".safetensors", ".bin", ".gguf", ".pt", ".safetensors.index.json", ".bin.index.json")

Replacement = Callable[[str, Tensor], bytes | memoryview | None]
"""The new bytes of a tensor, or None where it stays as it is."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file of weights as it was written."""

    blake3: str
    changed: int  # tensors that are not what they were


def weights_of(folder: Path) -> list[str]:
    """Return the files that hold a model's weights, as transformers looks for them. Raises ConfigError."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    try:
        names = sorted({str(name) for name in files.read_json(folder / INDEX)["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        names = []
    if not names or any("/" in name or not (folder / name).is_file() for name in names):
        raise ConfigError(
            f"The weights of the model in {folder} are not all there",
            found=", ".join(names[:3]) or f"neither {WEIGHTS} nor {INDEX}",
            expected=f"{WEIGHTS}, or {INDEX} with the files that it names",
            fix="bring the model back from its origin",
            code="no_weights",
        )
    return names


def companions_of(folder: Path) -> list[str]:
    """Return the files beside the weights that carry meaning: settings, tokenizer, chat template."""
    return sorted(
        name
        for name in os.listdir(folder)
        if name.endswith(PARTS) and not name.endswith(WEIGHT_ENDINGS) and not name.startswith(".")
        and name not in NOT_THE_MODEL
    )  # fmt: skip


NOT_THE_MODEL = (
    "adapter_config.json", "manifest.json", "trainer_state.json", "training_args.json", "overnight-base.json",
)  # fmt: skip
"""JSON files that stand in model folders of ours and say nothing of the model itself."""


def headers_of(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a model by name. Raises OSError, ConfigError, or ValueError where a header is damaged."""
    found: dict[str, Tensor] = {}
    for name in weights_of(folder):
        found |= read_header(folder / name)
    return found


def rewrite(source: Path, target: Path, replacement: Replacement, *, on_tensor: Callable[[], None]) -> Written:
    """Write a file of weights anew, durably, with some tensors replaced; the rest keeps its bytes and its place.

    No more than one tensor is held in memory. Errors pass as OSError; ValueError where the source is damaged.
    """
    from blake3 import blake3

    tensors = sorted(read_header(source).items(), key=lambda item: (item[1].begin, item[1].end))
    digest, changed = blake3(), 0
    with open(source, "rb") as reader, files.open_new(target) as writer:

        def put(data: bytes | memoryview) -> None:
            digest.update(data)
            writer.write(data)

        put(reader.read(min((tensor.begin for _, tensor in tensors), default=os.fstat(reader.fileno()).st_size)))
        for name, tensor in tensors:
            new = replacement(name, tensor)
            if new is not None and len(new) != tensor.end - tensor.begin:
                raise ValueError(f"'{name}' would have {len(new)} bytes in place of {tensor.end - tensor.begin}")
            place, is_changed = 0, False
            while old := reader.read(min(files.CHUNK_BYTES, tensor.end - tensor.begin - place)):
                piece = old if new is None else new[place : place + len(old)]
                is_changed = is_changed or piece != old
                put(piece)
                place += len(old)
            changed += is_changed
            on_tensor()
    files.sync_directory(target.parent)
    return Written(blake3=digest.hexdigest(), changed=changed)


def contents_of(folder: Path, *, on_file: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Return every file below a folder by its relative name, with its BLAKE3, read now."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = files.blake3_of(path)
            on_file()
    return found
