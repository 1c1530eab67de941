"""The program itself replaced, moved away or left without its libraries: nothing is lost, nobody loops, all is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import overnight
from overnight.disk.layout import Layout
from overnight.domain.attempt import FailureKind
from overnight.domain.job import JobState
from overnight.launchers.choice import SIMULATED
from simulated_rig import Rig

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

SOURCE = Path(overnight.__file__).parent
OPTIONAL = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "psutil", "bitsandbytes", "gguf")


def virtual_environment(place: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Make a virtual environment that holds what ours holds, but for some libraries; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(place)], check=True, timeout=90)
    inside = next(place.glob("lib/python*/site-packages"))
    for library in (Path(path) for path in sys.path if path.endswith("site-packages")):
        for entry in library.iterdir():
            name = entry.name.partition("-")[0].partition(".")[0].lower()
            if name not in without and entry.suffix not in (".pth", ".egg-link") and not (inside / entry.name).exists():
                (inside / entry.name).symlink_to(entry)
    (inside / "ours.pth").write_text(f"{SOURCE.parent}\n")
    return place / "bin" / "python"


def test_a_program_replaced_under_the_daemon_leaves_the_running_job_alone_and_is_told_at_the_next_launch(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "program"
    shutil.copytree(SOURCE, place / "overnight", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(place))
    rig.simulate(step_s=0.05)
    rig.make(files=1, rows=160)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 2, timeout=90)
    for path in place.rglob("*.py"):  # as a package manager does: each file written anew
        fresh = path.with_suffix(".new")
        shutil.copyfile(path, fresh)
        fresh.rename(path)
    top = place / "overnight" / "__init__.py"
    top.write_text(re.sub(r'(__version__ = ")[^"]*"', r'\g<1>9.9.9"', top.read_text()))
    rig.wait(rig.is_done, timeout=90)
    assert len(rig.attempts()) == 1
    assert rig.events("program.replaced") == []
    rig.submit("next.jsonl", rows=8)
    rig.submit("after.jsonl", rows=8)
    rig.wait(rig.is_done, timeout=90)
    (told,) = rig.events("program.replaced")
    assert f"{overnight.__version__} -> 9.9.9" in told["message"]
    assert told["level"] == "warning"
    assert (told["data"]["version"], told["data"]["daemon_version"]) == ("9.9.9", overnight.__version__)
    assert told["data"]["attempt"] == "000002-01"
    assert loop.poll() is None


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a virtual environment of the test's own, with all that ours has."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return virtual_environment(tmp_path / "venv").parents[1]


def test_an_environment_that_is_moved_away_is_told_makes_no_loop_of_restarts_and_costs_no_job_a_try(
    rig: Rig, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.simulate(step_s=0)
    rig.make()
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    watchdog = rig.start_watchdog()
    rig.wait(lambda: rig.daemon_pid() and rig.events("daemon.start"), timeout=90)
    loop = rig.daemon_pid()
    away = environment.with_name("away")
    environment.rename(away)
    # the loop lives on, and starts nothing
    job = rig.submit("waits.jsonl", rows=8)
    rig.wait(lambda: any("interpreter is gone" in attempt.reason for attempt in rig.attempts()), timeout=90)
    assert all(attempt.kind is FailureKind.DEPENDENCY for attempt in rig.attempts())
    # killed, it cannot be started again: told once, by a watchdog that stays
    assert loop is not None
    os.kill(loop, signal.SIGKILL)
    rig.wait(lambda: "the daemon cannot be started" in rig.layout.log("watchdog").read_text(), timeout=90)
    assert "interpreter is gone" in rig.layout.log("watchdog").read_text()
    assert watchdog.poll() is None
    told = rig.layout.log("watchdog").read_text().count("the daemon cannot be started")
    assert told == 1
    tries = len(rig.attempts())
    assert tries < 10
    away.rename(environment)
    rig.wait(lambda: rig.jobs()[0].state is JobState.SUCCEEDED, timeout=100)
    assert rig.jobs()[0].id == job.id
    assert rig.jobs()[0].charged == 0


def test_without_torch_and_psutil_all_but_the_training_works_and_the_job_waits_uncharged_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "workspace"
    for name in (SIMULATED, "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    python = str(virtual_environment(tmp_path / "venv", without=OPTIONAL))
    for name in ("torch", "psutil"):
        asked = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
        assert f"No module named '{name}'".encode() in asked.stderr

    def overnight_says(*words: str, code: int = 0, inside: bool = True) -> str:
        command = [python, "-m", "overnight", *(("-C", str(root)) if inside else ()), *words]
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert said.returncode == code, said.stdout + said.stderr
        assert "Traceback" not in said.stderr
        return said.stdout

    overnight_says(
        "init", str(root), "--base-model", "builtin:tiny", "--set", "queue.settle_s=0.05", "--set",
        "disk.min_free_gb=0", inside=False,
    )  # fmt: skip
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a row"}\n' * 8)
    overnight_says("add", str(data))
    overnight_says("up", "--detach")
    try:
        rig = Rig.__new__(Rig)  # to look into it: nothing is made
        rig.layout = Layout(root)
        rig.wait(lambda: [attempt for attempt in rig.attempts() if attempt.outcome is not None], timeout=100)
        ended = next(attempt for attempt in rig.attempts() if attempt.outcome is not None)
        assert ended.kind is FailureKind.DEPENDENCY, ended.reason
        status = json.loads(overnight_says("status", "--json"))
        assert status["queue"]["failed"] == 0
        assert "overnight[train]" in json.dumps(json.loads(overnight_says("crashes", "--json")))
        assert json.loads(overnight_says("verify", "--json"))["ok"] is True
        (job,) = json.loads(overnight_says("queue", "--json"))["jobs"]
        assert job["state"] in ("queued", "running")
        doctor = json.loads(overnight_says("doctor", "--json", code=1))
        libraries = next(check for check in doctor["checks"] if check["name"] == "libraries")
        assert libraries["status"] in ("warn", "fail")
        assert "overnight[train]" in json.dumps(libraries)
        overnight_says("stop")
        overnight_says("pause", "--no-wait")
        assert rig.jobs()[0].charged == 0
    finally:
        overnight_says("down", "--now")
    assert rig.jobs()[0].charged == 0
    assert rig.jobs()[0].state is JobState.QUEUED
