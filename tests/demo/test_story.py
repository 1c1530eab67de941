"""The demo's way through the product, on a model that is too small to learn anything: all but the score."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from overnight.demo import starting, story
from overnight.domain.errors import ConfigError, FailedError

try:
    starting.require_packages()
except ConfigError:
    pytest.skip("the extra demo is not installed", allow_module_level=True)

SMALL = {
    **story.SETTINGS,
    "max_length": "128",
    "train.threads": "1",
    "train.device": "cpu",
    "disk.min_free_gb": "0",
    # steps of this model take some 20 ms: between the look and the kill there must not lie another save
    "checkpoint.every_steps": "40",
}


def left_over(folder: Path, *, limit_s: float = 15) -> list[str]:
    """Return what still runs on a workspace; the one that judges a file may just be ending by itself."""
    deadline = time.monotonic() + limit_s
    while (found := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(folder) in " ".join(words) and process.pid != os.getpid():
            found.append(" ".join(words))
    return found


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(400)
def test_the_killed_training_resumes_and_a_model_that_learnt_nothing_is_told_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "BASE_MODEL", "builtin:tiny")
    monkeypatch.setattr(story, "SETTINGS", SMALL)
    shown = io.StringIO()
    workspace = tmp_path / "workspace"
    with pytest.raises(FailedError, match="does not beat its base clearly"):
        story.run(workspace, console=Console(file=shown, width=200, highlight=False))
    told = shown.getvalue()
    assert "trained again, with the same loss to the last digit" in told
    result = json.loads((workspace / "demo" / "result.json").read_text())
    assert result["steps"] == 96
    assert 0 < result["resumed_from"] < result["killed_at"] < 96
    assert (workspace / "demo" / "loss.png").stat().st_size > 10_000
    assert [path.name for path in (workspace / "done").iterdir()] == [story.DATA_FILE]
    assert left_over(workspace) == []


@pytest.mark.crash
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: int) -> None:
    workspace = tmp_path / "workspace"
    program = (
        "import sys; from pathlib import Path; from overnight.demo import story\n"
        f"story.BASE_MODEL = 'builtin:tiny'; story.SETTINGS = {SMALL!r}\n"
        "sys.exit(story.run(Path(sys.argv[1])))"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", program, str(workspace)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (workspace / "status" / "training_status.json").exists():
            assert demo.poll() is None, demo.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.send_signal(number)
        told, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130, told
    assert "Traceback" not in told
    assert left_over(workspace) == []
