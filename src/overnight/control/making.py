"""Making a workspace: settings judged first, then the tree, the database and the base model; config.json comes last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overnight.control import settings as operator_settings
from overnight.database import events
from overnight.database.connection import connect
from overnight.disk import builtin, folder_lock, workspace
from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new workspace."""

    layout: Layout
    model_name: str
    base_model: str


def init(
    folder: Path, *, base_model: str, model_name: str | None, assignments: list[str], say: Callable[[str], None]
) -> Made:
    """Make a workspace. Killed half-way, it may be run again. Raises UsageError, ConfigError, DiskError."""
    layout = workspace.new_layout(folder)
    name = model_name if model_name is not None else (layout.root.name or "model")[:LONGEST_NAME]
    base = _settled(layout, base_model)
    values = operator_settings.build(assignments, base_model=base, model_name=name)
    base, name = values["base_model"], values["model_name"]  # --set may name them too
    workspace.create(layout)
    folder_lock.is_locked(layout.state)  # raises where locks do not work: better now than at the first start
    connection = connect(layout.database, create=True)
    try:
        _provide(layout, base, say=say)
        workspace.finish(layout, values)
        events.record(
            connection,
            now=time.time(),
            kind="workspace.made",
            message=f"workspace for {name} on {base}",
            model_name=name,
            base_model=base,
        )
    finally:
        connection.close()
    return Made(layout=layout, model_name=name, base_model=base)


def _settled(layout: Layout, base_model: str) -> str:
    """Return the base model as config.json keeps it: a folder by its absolute path, wherever one stands later.

    Raises ConfigError where it is not there.
    """
    if not base_model.startswith("builtin:"):
        try:
            folder = Path(base_model).expanduser()
            if folder.is_dir():
                if not (folder / "config.json").is_file():
                    raise ConfigError(
                        f"{folder} is no base model",
                        found="a folder without config.json",
                        expected="a folder in the Hugging Face layout",
                        fix="name the folder that holds config.json and the weights",
                        code="base_model",
                    )
                return os.path.abspath(folder)
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(
                f"The base model {base_model!r} cannot be looked for", found=str(error), code="base_model"
            ) from error
    builtin.resolve(layout, base_model)
    return base_model


def _provide(layout: Layout, base_model: str, *, say: Callable[[str], None]) -> None:
    if base_model == builtin.TINY:
        builtin.make_tiny(layout.base / builtin.FOLDERS[base_model])
    elif base_model == builtin.SMOLLM2:
        from overnight.launchers import errands

        errands.convert_base(layout.base / builtin.FOLDERS[base_model], say=say)
