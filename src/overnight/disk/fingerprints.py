"""What a base model is, as one hash over its files; read again only where the kernel says that a file was touched."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from overnight.disk import files
from overnight.disk.manifest import MANIFEST
from overnight.domain.errors import ConfigError, DiskError
from overnight.domain.version import WHAT

SCHEMA = 1
PARTS = (".safetensors", ".bin", ".json", ".jinja", ".model", "vocab.txt", "merges.txt", ".tiktoken", ".gguf", ".pt")
"""Endings of the files that make a model; notes, licences and pictures beside them carry no meaning."""

TOKENIZER_PARTS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
"""The files that say how text becomes tokens; all of them are parts of the model too."""


def of_folder(
    folder: Path, *, memory: Path | None = None, on_file: Callable[[], None] = lambda: None, reread_bytes: int = 0
) -> str:
    """Return the fingerprint of a model folder: ``blake3:`` and the hash over names, sizes and contents.

    ``memory`` is a file that keeps what was read, keyed by what the kernel says of each file (device, inode, size, both
    times); it may be lost at any time. Files below ``reread_bytes`` are read again all the same. ``on_file`` is called
    after each file. Raises ConfigError where the folder holds
    no model file, or one that is no regular file, and OSError where one cannot be read.
    """
    known = _recall(memory)
    seen: dict[str, list[Any]] = {}
    digest = blake3()
    for name in _parts(folder):
        looks, content = _content(folder / name, known, reread_bytes=reread_bytes)
        seen[str(folder / name)] = [looks, content]
        digest.update(f"{name}\0{looks[2]}\0{content}\n".encode("utf-8", "surrogateescape"))
        on_file()
    if memory is not None and any(known.get(path) != value for path, value in seen.items()):
        with contextlib.suppress(DiskError):  # a memory, not the truth
            files.write_json_atomically(memory, {"schema": SCHEMA, "files": {**known, **seen}})
    return f"blake3:{digest.hexdigest()}"


def of_tokenizer(folder: Path) -> str:
    """Return the hash of a tokenizer's files, the chat template among them. Raises OSError."""
    digest = blake3()
    for name in TOKENIZER_PARTS:
        if (folder / name).is_file():
            digest.update(f"{name}\0{files.blake3_of(folder / name)}\n".encode())
    return f"blake3:{digest.hexdigest()}"


def _parts(folder: Path) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if name.endswith(PARTS) and not name.startswith("."))
    if MANIFEST in names and _is_published(folder / MANIFEST):
        names.remove(MANIFEST)  # it holds this very hash, and one of itself
    if "config.json" not in names:
        raise ConfigError(
            f"The base model in {folder} has no config.json",
            found=", ".join(names[:5]) or "no model files",
            expected="a folder as transformers saves it: config.json, tokenizer files, *.safetensors",
            fix="check the path of base_model",
        )
    for name in names:
        if not stat.S_ISREG(os.stat(folder / name).st_mode):  # a pipe would be waited on for ever
            raise ConfigError(
                f"{folder / name} is no regular file",
                found="a folder, pipe, socket or device",
                expected="a file",
                fix="remove it, or check the path of base_model",
            )
    return names


def _content(path: Path, known: dict[str, list[Any]], *, reread_bytes: int) -> tuple[list[int], str]:
    facts = os.stat(path)
    looks = [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
    remembered = known.get(str(path))
    if remembered is not None and remembered[0] == looks and facts.st_size >= reread_bytes:
        return looks, str(remembered[1])
    return looks, files.blake3_of(path)


def _recall(memory: Path | None) -> dict[str, list[Any]]:
    if memory is None:
        return {}
    try:
        value = files.read_json(memory)
        if value["schema"] != SCHEMA:
            return {}
        return {
            str(path): [list(item[0]), str(item[1])]
            for path, item in value["files"].items()
            if isinstance(item, list) and len(item) == 2 and isinstance(item[0], list)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_published(manifest: Path) -> bool:
    """Return whether a manifest is that of a version of ours."""
    try:
        value = files.read_json(manifest) if stat.S_ISREG(os.lstat(manifest).st_mode) else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("what") == WHAT
