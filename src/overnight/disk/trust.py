"""Which checkpoints were read to the last byte, and have not been touched since: the memory of the verifier.

A checkpoint counts as verified while each of its files has the device, inode, size and both times that it had when its
content was compared with the manifest. The change time cannot be set by hand, so an edit always shows. The file
``.overnight/verified.json`` may be lost at any time: the next verification writes it again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from overnight.disk import checkpoints, files
from overnight.disk.layout import Layout
from overnight.disk.manifest import MANIFEST
from overnight.disk.reading import blake3_of_text
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict
from overnight.domain.errors import DiskError

SCHEMA = 1
READ_AT_ONCE_BYTES = 64 << 20
"""A checkpoint up to this size is read when somebody asks for it; it takes some hundredths of a second."""

_known: dict[str, tuple[str, bool]] = {}
"""What this process has read: folder -> (its looks, verdict)."""


def is_verified(layout: Layout, report: CheckpointReport) -> bool | None:
    """Return whether a complete checkpoint's content is as committed; None where nobody has read it yet.

    Reading only. A small checkpoint is read here and now, a big one is looked up.
    """
    if report.manifest is None:
        return None
    looks = _looks(Path(report.path), report.manifest)
    known = _known.get(report.path)
    if known is not None and known[0] == looks:
        return known[1]
    if looks is not None and looks == _remembered(layout).get(Path(report.path).name):
        return True
    if report.bytes > READ_AT_ONCE_BYTES:
        return None
    found = checkpoints.verify(Path(report.path))
    if found.is_unreadable:
        return None
    verdict = found.verdict is Verdict.VERIFIED
    if looks is not None and looks == _looks(Path(report.path), report.manifest):
        _known[report.path] = (looks, verdict)
    return verdict


def verify(layout: Layout, folder: Path) -> CheckpointReport:
    """Judge a checkpoint by its content, read only where it was touched since the last time; remember the verdict."""
    seen = checkpoints.judge_by_looks(folder)
    if seen.verdict is not Verdict.VERIFIED or seen.manifest is None:
        return seen
    before = _looks(folder, seen.manifest)
    if before is not None and before == _remembered(layout).get(folder.name):
        return CheckpointReport(
            step=seen.step,
            path=seen.path,
            verdict=Verdict.VERIFIED,
            reason="every file is as committed; untouched since it was read",
            bytes=seen.bytes,
            manifest=seen.manifest,
        )
    report = checkpoints.verify(folder)
    remember(layout, report, looks=before)
    return report


def remember(layout: Layout, report: CheckpointReport, *, looks: str | None = None) -> None:
    """Keep a verdict of "verified" for those who ask later; ``looks`` are those from before the content was read.

    Never fails: this is a memory, not the truth.
    """
    if report.verdict is not Verdict.VERIFIED or report.manifest is None:
        return
    folder = Path(report.path)
    after = _looks(folder, report.manifest)
    if after is None or (looks is not None and looks != after):
        return
    with contextlib.suppress(DiskError, OSError):
        known = _remembered(layout)
        if known.get(folder.name) == after:
            return
        kept = {name: seen for name, seen in known.items() if (layout.model / name).is_dir()}
        value = {"schema": SCHEMA, "checkpoints": {**kept, folder.name: after}}
        files.write_json_atomically(_path(layout), value)


def _path(layout: Layout) -> Path:
    return layout.state / "verified.json"


def _remembered(layout: Layout) -> dict[str, Any]:
    try:
        value = files.read_json(_path(layout))
        return dict(value["checkpoints"]) if value.get("schema") == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _looks(folder: Path, manifest: Manifest) -> str | None:
    """Return what the kernel says of each file without reading it, as one short text."""
    parts: list[str] = []
    for name in [*sorted(manifest.files), MANIFEST]:
        try:
            facts = os.lstat(folder / name)
        except OSError:
            return None
        parts.append(f"{name}:{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ctime_ns}")
    return blake3_of_text("\n".join(parts))
