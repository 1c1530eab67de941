"""A driver's tool that hangs, fails or says odd things never hangs and never breaks anything here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from overnight.launchers.devices import ask_gpus


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the place where the tool is looked for."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "nvidia-smi"


def write(tool: Path, script: str) -> None:
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_without_the_tool_there_is_no_gpu_and_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (ask_gpus().is_there, ask_gpus().trouble, ask_gpus().names) == (False, None, [])


def test_a_tool_that_hangs_is_told_within_its_limit_and_leaves_nothing_behind(tool: Path) -> None:
    marker = f"{tool.parent}/ended"
    write(tool, f"sleep 600 & wait; touch {marker}")
    started = time.monotonic()
    gpus = ask_gpus(limit_s=0.3)
    assert time.monotonic() - started < 30
    assert gpus.trouble == "nvidia-smi did not answer within 0.3 s: the driver hangs"
    mine = [
        path for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and str(tool).encode() in _bytes(path)
    ]  # fmt: skip
    assert mine == []


def test_figures_that_are_not_there_are_left_out(tool: Path) -> None:
    write(tool, "echo 'NVIDIA GB10, [N/A], [N/A], 41'; echo 'NVIDIA H100, 81559, 1024, [Not Supported]'; echo 'odd'")
    assert ask_gpus().names == ["NVIDIA GB10 (41 °C)", "NVIDIA H100 (1.0 of 79.6 GB used)", "odd"]


def test_a_driver_that_fails_is_told_in_its_own_words(tool: Path) -> None:
    write(tool, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    assert "could not communicate" in str(ask_gpus().trouble)


def test_a_driver_without_a_device_is_no_trouble(tool: Path) -> None:
    write(tool, "echo 'No devices were found'; exit 6")
    assert ask_gpus().trouble is None
    assert ask_gpus().names == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
