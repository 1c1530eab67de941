"""The manifest of a checkpoint or version: what it is, each file with its hash, a hash of itself: an edit shows."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

from blake3 import blake3

from overnight.disk import files
from overnight.domain.checkpoint import FileRecord, Manifest

MANIFEST = "manifest.json"
MANIFEST_LIMIT_BYTES = 16 << 20
SCHEMA = 1


def read_manifest(folder: Path) -> Manifest:
    """Return a checkpoint's manifest. Raises OSError, or ValueError where it is torn, edited or of another format."""
    return _manifest(read_value(folder))


def read_value(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says, its own hash compared. Raises OSError or ValueError."""
    path = folder / MANIFEST
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("the manifest is no regular file")
    if facts.st_size > MANIFEST_LIMIT_BYTES:
        raise ValueError(f"the manifest is {facts.st_size} bytes long")
    try:
        value = json.loads(files.read_bytes(path, limit=MANIFEST_LIMIT_BYTES).decode("utf-8"), parse_float=_exact)
    except RecursionError as error:
        raise ValueError("the manifest is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("the manifest is no JSON object")
    if value.get("schema") != SCHEMA:
        raise ValueError(f"the manifest has schema {value.get('schema')!r}, expected {SCHEMA}")
    if value.pop("digest", None) != digest_of(value):
        raise ValueError("the manifest was edited: its own hash does not match")
    return value


def _exact(text: str) -> float:
    """Return a number whose text is the one that we write: another text of the same value was not written by us."""
    value = float(text)
    if repr(value) != text:
        raise ValueError(f"the manifest was edited: {text} is not as it was written")
    return value


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a checkpoint's manifest, the last of its files, with a hash of itself. Raises DiskError."""
    write_value(folder, dataclasses.asdict(manifest))


def write_value(folder: Path, value: dict[str, Any]) -> None:
    """Write a manifest with a hash of itself. Raises DiskError."""
    files.write_json_durably(folder / MANIFEST, {**value, "digest": digest_of(value)})


def digest_of(value: dict[str, Any]) -> str:
    """Return the hash of a manifest's meaning, whatever the order and spacing of its text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake3(text.encode("utf-8")).hexdigest()


def _manifest(value: dict[str, Any]) -> Manifest:
    """Build the record: unknown fields are ignored, missing and ill-named ones raise ValueError."""
    needed = [field.name for field in dataclasses.fields(Manifest) if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in value]
    if missing:
        raise ValueError(f"the manifest lacks {', '.join(missing)}")
    records = records_of(value)
    known = {field.name: value[field.name] for field in dataclasses.fields(Manifest) if field.name in value}
    return Manifest(**{**known, "files": records})


def records_of(value: dict[str, Any]) -> dict[str, FileRecord]:
    """Return the files that a manifest lists. Raises ValueError."""
    try:
        records = {
            str(name): FileRecord(bytes=int(item["bytes"]), blake3=str(item["blake3"]))
            for name, item in value["files"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("the manifest's list of files is damaged") from error
    if any(name.startswith("/") or ".." in name.split("/") for name in records):
        raise ValueError("the manifest names files outside its folder")
    return records
