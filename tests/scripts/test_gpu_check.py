"""The check for CUDA machines says so where there is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check"


def test_without_a_cuda_device_it_says_so_and_tells_to_try_elsewhere() -> None:
    pytest.importorskip("trl")
    done = subprocess.run(
        [str(SCRIPT)], capture_output=True, text=True, timeout=90, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 75, done.stderr
    assert done.stdout.startswith("no CUDA device here")
    assert "Traceback" not in done.stderr


def test_an_unknown_check_is_wrong_usage() -> None:
    done = subprocess.run([str(SCRIPT), "--only", "everything"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "exact-lora" in done.stderr
