"""Where the next job starts from: the one function of the dispatcher and of ``verify``.

The checkpoints are read to the last byte from the newest down to the first that is whole; the base model is compared by
content, read again only where the kernel says that a big file was touched. Reading only, but for the memory of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from overnight.database import events
from overnight.database.connection import Connection
from overnight.disk import base_models, checkpoints, files, fingerprints, locked, model_folder, trust, versions
from overnight.disk.layout import Layout
from overnight.disk.tensor_headers import read_header
from overnight.domain import start
from overnight.domain.checkpoint import CheckpointReport
from overnight.domain.config import ConfigProblem
from overnight.domain.errors import ConfigError
from overnight.domain.shapes import misfit
from overnight.domain.start import Base, Start
from overnight.domain.version import Version, number_of

CHANGES = ("version.published", "version.rolled_back", "job.keep_aside", "job.accept")
"""Events after which the model stands elsewhere; each tells its newest checkpoint from then on."""

ADAPTER = "adapter_model.safetensors"
REREAD_BYTES = 16 << 20
"""Smaller files of a base model (settings, tokenizer, template) are read each time: nothing is taken on trust there."""


def find(layout: Layout, *, base_model: str | None, ever_committed: int | None) -> Start:
    """Return where the next job starts from, and what speaks against it."""
    newest, passed_over = checkpoints.newest_verified(layout.model)
    if newest is not None:
        trust.remember(layout, newest)
    return start.judge(newest, passed_over, base=_base(layout, base_model, newest), ever_committed=ever_committed)


def base_problems(layout: Layout, *, base_model: str) -> list[ConfigProblem]:
    """Return what is wrong with the base model by content, without reading any checkpoint's."""
    newest = checkpoints.newest_complete(layout.model)
    return start.base_problems(newest, _base(layout, base_model, newest)) if newest is not None else []


def ever_committed(layout: Layout, connection: Connection | None) -> int | None:
    """Return a step that was once committed on the version in use, or None where none ever was.

    What lies further back is no loss: when a version was put in use, the checkpoints of the other one were put aside.
    """
    if connection is None:
        return told_step(layout)
    committed = events.newest_of(connection, "checkpoint.committed")
    since = int(committed["id"]) if committed is not None else 0  # older changes say nothing any more
    changes = [events.newest_of(connection, kind, after=since) for kind in CHANGES]
    change = max((one for one in changes if one is not None), key=lambda one: int(one["id"]), default=None)
    if change is not None:
        step = change["data"].get("checkpoint")
        return int(step) if step is not None else None
    return int(committed["data"].get("step", 0)) if committed is not None else told_step(layout)


def version_begun(layout: Layout) -> Version | None:
    """Return the version that the next job starts from where nothing was trained on it yet, else None."""
    source = locked.read(layout).source
    if source is None or number_of(source) is None:
        return None
    try:
        return versions.read(layout.versions / source)
    except (OSError, ValueError):
        return None


def base_problems_of(layout: Layout, report: CheckpointReport, *, base_model: str) -> list[ConfigProblem]:
    """Return why the base model is not the one that a checkpoint was trained on, by content."""
    return start.base_problems(report, _base(layout, base_model, report))


def told_step(layout: Layout) -> int | None:
    """Return the step that .config_lock.json remembers of a checkpoint, or None."""
    try:
        value = files.read_json(layout.config_lock)
        return int(value["step"]) if value.get("version") is None else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _base(layout: Layout, base_model: str | None, newest: CheckpointReport | None) -> Base:
    if base_model is None:
        return Base(path=None, fingerprint=None, tokenizer=None)
    try:
        path = base_models.resolve(layout, base_model)
        if not os.path.isabs(path) or (base_model in base_models.FOLDERS and not os.path.isdir(path)):
            return Base(path=path, fingerprint=None, tokenizer=None)  # on the Hub, or made by the first trainer
        memory = layout.state / "fingerprints.json"
        fingerprint = fingerprints.of_folder(Path(path), memory=memory, reread_bytes=REREAD_BYTES)
        damage, unfit = _look_inside(Path(path), newest)
        tokenizer = fingerprints.of_tokenizer(Path(path))
        begun = version_begun(layout) if newest is None else None
        return Base(
            path=path, fingerprint=fingerprint, tokenizer=tokenizer, damage=damage, misfit=unfit,
            published=begun.fingerprints if begun is not None else {},
        )  # fmt: skip
    except ConfigError as error:
        found = f"{error.what}: {error.found}" if error.found else error.what
        return Base(path=None, fingerprint=None, tokenizer=None, trouble=found)
    except OSError as error:
        return Base(path=None, fingerprint=None, tokenizer=None, trouble=f"{base_model}: {error.strerror or error}")


def _look_inside(folder: Path, newest: CheckpointReport | None) -> tuple[str | None, str | None]:
    """Return what is damaged in the base model's weights, and how the newest adapter does not fit them."""
    base, damage = model_folder.look(folder)
    if damage is not None:
        return damage, None
    manifest = newest.manifest if newest is not None else None
    if newest is None or manifest is None or ADAPTER not in manifest.files:
        return None, None
    try:
        adapter = {name: tensor.shape for name, tensor in read_header(Path(newest.path) / ADAPTER).items()}
    except (OSError, ValueError):
        return None, None  # its hash is what was committed; the trainer says more when it loads it
    rank = manifest.locked.get("lora.r")
    return None, misfit(adapter, base, rank=rank if isinstance(rank, int) else None)
