"""The verb export: a version outside of the workspace, verified, in a new folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from overnight.control import versions as verbs
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain import export
from overnight.domain.errors import ConfigError, DiskError, FailedError, OvernightError, UsageError
from overnight.domain.export import Format
from overnight.domain.row_shapes import Message
from overnight.domain.templates import ChatTemplate
from overnight.domain.version import Version, VersionReport
from overnight.launchers import errands

SPARE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported, and what can be done with it."""

    id: str
    format: Format
    path: str
    files: dict[str, str]  # relative name -> BLAKE3
    bytes: int
    commands: list[str]
    modelfile: str | None


def export_version(layout: Layout, identity: str, *, to: Path, format: Format) -> Exported:
    """Write a version into the new folder ``to``. Raises UsageError, FailedError, ConfigError, DiskError."""
    target = Path(os.path.abspath(to))
    _require_free(target, layout)
    report = verbs.verify(layout, identity)
    version = _require_whole(report)
    names = export.names_of(format, version.files)
    if format is Format.ADAPTER and not names:
        raise UsageError(
            f"{identity} has no adapter", found=f"method {version.method}: all weights were trained",
            expected="a version made of base and adapter", fix=f"overnight versions export {identity} --format hf",
            code="no_adapter",
        )  # fmt: skip
    if format is Format.GGUF and find_spec("gguf") is None:
        raise ConfigError(
            "GGUF files cannot be written here", found="no package gguf", expected="the package gguf",
            fix="pip install 'overnight[train]'", code="missing_package",
        )  # fmt: skip
    files.make_directory(target.parent)
    _require_space(target.parent, version, names.keys() or version.files.keys())
    staging = target.with_name(f".{target.name[:100]}.{files.token()}.tmp")
    files.make_directory(staging)
    try:
        source = _fill(staging, Path(report.path), version, names, format)
        hashes = _settle(staging, target, expected={names[name]: version.files[name].blake3 for name in names})
    except OSError as error:
        raise files.disk_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            files.remove_tree(staging, inside=staging.parent)
    modelfile = target / export.MODELFILE
    return Exported(
        id=version.id,
        format=format,
        path=str(target),
        files=hashes,
        bytes=sum((target / name).stat().st_size for name in hashes),
        commands=export.how_to_use(
            format, str(target), model_name=version.model_name, source=source, base_model=version.base_path
        ),
        modelfile=modelfile.read_text(encoding="utf-8") if modelfile.is_file() else None,
    )


def _require_free(target: Path, layout: Layout) -> None:
    """Refuse a place where something lies, and one inside the workspace's own folders."""
    found = None
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
        found = "something that is no folder"
    elif target.is_dir() and any(target.iterdir()):
        found = f"a folder with {sum(1 for _ in target.iterdir())} entries"
    if found is not None:
        raise UsageError(
            f"{target} is in the way", found=found, expected="a folder that is not there yet, or an empty one",
            fix="name another folder", code="target_in_way",
        )  # fmt: skip
    resolved = target.parent.resolve() / target.name
    ours = [folder.resolve() for folder in layout.folders()]
    if any(resolved == folder or folder in resolved.parents for folder in ours):
        raise UsageError(
            f"{target} lies in a folder of the workspace's own", found=str(resolved),
            expected="a place outside of it", fix="name another folder", code="target_inside",
        )  # fmt: skip


def _require_whole(report: VersionReport) -> Version:
    if report.version is None or report.state != "ok":
        raise FailedError(
            f"{report.id} is damaged, and nothing of it is exported", found=report.reason,
            expected="every file as it was published", fix="overnight versions restore, where there is a backup",
            code="damaged_version",
        )  # fmt: skip
    return report.version


def _require_space(place: Path, version: Version, names: Iterable[str]) -> None:
    needed, free = sum(version.files[name].bytes for name in names) + SPARE_BYTES, files.free_bytes(place)
    if needed > free:
        raise DiskError(
            f"There is no room for the export in {place}", found=f"{free / 1e6:.0f} MB free",
            expected=f"{needed / 1e6:.0f} MB", fix="free space, or name a folder on another disk", code="no_space",
        )  # fmt: skip


def _fill(staging: Path, folder: Path, version: Version, names: dict[str, str], format: Format) -> str:
    """Write everything into the hidden folder; return the name of the file that holds the model, if it is one."""
    for name, new in names.items():
        files.copy_durably(folder / name, staging / new)
    if format is Format.ADAPTER:
        return ""
    source = ""
    if format is Format.GGUF:
        source = export.gguf_name(version.model_name, version.id)
        errands.write_gguf(folder, staging / source)
    files.write_durably(staging / export.MODELFILE, _modelfile(folder, source).encode())
    return source


def _settle(staging: Path, target: Path, *, expected: dict[str, str]) -> dict[str, str]:
    """Read everything back, then give the folder its name; return the hashes. Raises FailedError."""
    found = {path.name: files.blake3_of(path) for path in sorted(staging.iterdir())}
    wrong = [name for name, content in expected.items() if found.get(name) != content]
    if wrong:
        raise FailedError(
            "What was read back is not what was published", found=", ".join(wrong[:3]),
            expected="the bytes of the version", fix="check the disk; export again", code="damaged_write",
        )  # fmt: skip
    files.sync_directory(staging)
    files.rename_durably(staging, target)  # over an empty folder too, never over a full one
    return found


def _modelfile(folder: Path, source: str) -> str:
    config = _json(folder / "config.json")
    tokenizer = _json(folder / "tokenizer_config.json")
    stop = tokenizer.get("eos_token")
    stop = stop.get("content") if isinstance(stop, dict) else stop
    context = config.get("max_position_embeddings")
    return export.modelfile(
        source, is_chatml=_is_chatml(folder, tokenizer), stops=[stop] if isinstance(stop, str) else [],
        context=context if isinstance(context, int) else None,
    )  # fmt: skip


def _is_chatml(folder: Path, tokenizer: dict[str, Any]) -> bool:
    """Return whether the chat template makes of a conversation exactly what ChatML is."""
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.is_file() else tokenizer.get("chat_template")
    if not isinstance(template, str):
        return False
    try:
        made = ChatTemplate(template, special_tokens={}).render(
            [Message(role, text) for role, text in export.PROBE], add_generation_prompt=True
        )
    except (OvernightError, ValueError, TypeError):
        return False
    return made == export.PROBE_AS_CHATML


def _json(path: Path) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
