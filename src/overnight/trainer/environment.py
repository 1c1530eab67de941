"""The ground a trainer stands on: variables set before torch is imported, and the facts a checkpoint records.

Nothing here depends on HOME, TMPDIR or the network when the base model is a local folder.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from overnight.domain.attempt import Spec
from overnight.domain.merge import MergeSpec

LIBRARIES = ("overnight", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
EXACTNESS = (*LIBRARIES[1:], "threads", "device", "device_name", "cpu_capability", "dtype", "machine")
"""Facts on which the last bit may depend."""


def arrange(spec: Spec | MergeSpec, scratch: Path) -> None:
    """Set the variables that libraries read when they are imported. Call before torch is imported."""
    os.environ.update(
        variables(threads=spec.threads, base_model=spec.base_model, workspace=Path(spec.workspace), scratch=scratch)
    )


def variables(*, threads: int, base_model: str, workspace: Path, scratch: Path) -> dict[str, str]:
    """Return the variables that libraries read when they are imported."""
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_CACHE": str(scratch / "cache"),
        "HF_MODULES_CACHE": str(scratch / "cache"),
        "TMPDIR": str(scratch / "tmp"),
        "WANDB_MODE": "disabled",
    }
    if Path(base_model).is_absolute():
        settings |= {
            "HF_HOME": str(scratch / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
    elif "HF_HOME" not in os.environ and not os.access(Path.home(), os.W_OK):
        settings["HF_HOME"] = str(workspace / ".overnight" / "hub")
    settings |= sleeping_threads()
    if "LOCAL_RANK" not in os.environ:  # one process uses one GPU
        settings["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return settings


@dataclass(frozen=True, slots=True)
class Taken:
    """A path that a library took from the variables, kept as a plain name of one of its modules."""

    names: dict[str, Any]
    name: str
    rest: str  # below the folder


def taken_paths(folder: Path) -> list[Taken]:
    """Return every path into a folder that libraries took from the variables when they were imported."""
    found: list[Taken] = []
    for module in list(sys.modules.values()):
        names: dict[str, Any] = getattr(module, "__dict__", {})
        for name, value in list(names.items()):
            if type(value) is str or issubclass(type(value), PurePath):
                text = str(value)
                if text == str(folder) or text.startswith(f"{folder}/"):
                    found.append(Taken(names, name, text.removeprefix(str(folder))))
    return found


def move_paths(taken: list[Taken], new: Path) -> None:
    """Let the paths that libraries took lead into another folder: they read them there whenever they need them."""
    for one in taken:
        one.names[one.name] = type(one.names[one.name])(f"{new}{one.rest}")


def sleeping_threads() -> dict[str, str]:
    """Return what lets threads that wait for others sleep.

    Spinning ones make a step take four to ten times on a busy machine.
    """
    return {"GOMP_SPINCOUNT": "1000"} if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) else {}


def wait_without_spinning() -> None:
    """Let threads that wait for others sleep. Call before torch is imported."""
    os.environ.update(sleeping_threads())


def package_versions() -> dict[str, str]:
    """Return the versions of what is installed."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts(*, threads: int, device: str, device_name: str, cpu_capability: str, dtype: str) -> dict[str, Any]:
    """Return what a checkpoint records of the machine and its libraries."""
    return {
        **package_versions(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": threads,
        "device": device,
        "device_name": device_name,
        "cpu_capability": cpu_capability,
        "dtype": dtype,
    }


def differences(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return in what the last bit may now differ, as "threads 1 -> 2"."""
    return [
        f"{name} {recorded.get(name)} -> {found.get(name)}"
        for name in EXACTNESS
        if name in recorded and recorded.get(name) != found.get(name)
    ]


def version_changes(recorded: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return which versions differ from those that wrote a checkpoint, as "torch 2.6.0 -> 2.9.1"."""
    return [
        f"{name} {recorded[name]} -> {found.get(name, 'none')}"
        for name in (*LIBRARIES, "python")
        if name in recorded and recorded[name] != found.get(name)
    ]
