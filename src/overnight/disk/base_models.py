"""Where a base model lies: names are resolved to folders here, without loading anything."""

from __future__ import annotations

import os
import re
from pathlib import Path

from overnight.disk import ownership
from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError

TINY = "builtin:tiny"
SMOLLM2 = "builtin:smollm2-135m"
FOLDERS = {TINY: "tiny", SMOLLM2: "smollm2-135m"}
"""The builtin models and the folder, below ``.overnight/base``, in which each one lies."""

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def resolve(layout: Layout, base_model: str) -> str:
    """Return where a base model lies: an absolute folder, or the Hub id unchanged.

    A relative folder is looked for in the workspace, never in the current folder of whoever asks. Raises ConfigError
    where the value is none of a builtin name, a folder that is there, and a Hub id.
    """
    if base_model in FOLDERS:
        return str(layout.base / FOLDERS[base_model])
    folder = layout.root / Path(base_model).expanduser()  # an absolute one stays itself
    if folder.is_dir():
        _refuse_checkpoint(folder)
        return os.path.abspath(folder)
    if base_model.startswith("builtin:"):
        expected, fix = " or ".join(FOLDERS), "choose one of the builtin models"
    elif HUB_ID.fullmatch(base_model):
        return base_model
    else:
        expected, fix = "a folder with a Hugging Face model, or a Hub id such as org/name", "mount it, or mend the path"
    raise ConfigError(f"The base model '{base_model}' is not there", found=base_model, expected=expected, fix=fix)


def _refuse_checkpoint(folder: Path) -> None:
    """Refuse what lies in a workspace's current_model/: it is trained on, and its checkpoints come and go."""
    owner = ownership.workspace_around(folder)
    if owner is not None and Path(os.path.realpath(owner.model)) in Path(os.path.realpath(folder)).parents:
        raise ConfigError(
            "A checkpoint cannot be the base model: it goes when newer ones come",
            found=f"{folder}, in the workspace {owner.root}",
            expected="a folder that nobody changes, such as a version in models/",
            fix="copy it to a place of its own, or name a version",
            code="base_model",
        )
