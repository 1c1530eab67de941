"""The ground a trainer stands on: variables set before torch is imported, and the facts a checkpoint records.

Nothing here depends on HOME, TMPDIR or the network when the base model is a local folder.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from overnight.domain.attempt import Spec

LIBRARIES = ("overnight", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
EXACTNESS = (*LIBRARIES[1:], "threads", "device", "device_name", "cpu_capability", "dtype", "machine")
"""Facts on which the last bit may depend."""


def arrange(spec: Spec, scratch: Path) -> None:
    """Set the variables that libraries read when they are imported. Call before torch is imported."""
    threads = str(spec.threads)
    settings = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "RAYON_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_CACHE": str(scratch / "cache"),
        "HF_MODULES_CACHE": str(scratch / "cache"),
        "TMPDIR": str(scratch / "tmp"),
        "WANDB_MODE": "disabled",
    }
    if Path(spec.base_model).is_absolute():
        settings |= {
            "HF_HOME": str(scratch / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
    elif "HF_HOME" not in os.environ and not os.access(Path.home(), os.W_OK):
        settings["HF_HOME"] = str(Path(spec.workspace) / ".overnight" / "hub")
    wait_without_spinning()
    os.environ.update(settings)
    if "LOCAL_RANK" not in os.environ:  # one process uses one GPU
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]


def wait_without_spinning() -> None:
    """Let threads that wait for others sleep: spinning ones make a step take four to ten times on a busy machine.

    Call before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def library_versions() -> dict[str, str]:
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
        **library_versions(),
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
