"""A workspace driven from outside, as a user drives it: the command line, files, signals."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {
    "train.batch_size": "4",
    "train.learning_rate": "0.002",
    "train.threads": "1",
    "max_length": "128",
    "checkpoint.every_steps": "5",
    "queue.settle_s": "0.2",
    "queue.poll_interval_s": "0.2",
    "disk.min_free_gb": "0",
    "train.device": "cpu",
}
LONG = {"train.epochs": "12", "checkpoint.every_steps": "25"}
"""192 steps a file."""
STEPS = 576
"""Three files of 64 rows, batch 4, 12 epochs."""


def write_rows(path: Path, *, seed: int, count: int = 64) -> Path:
    """Write chat rows of sums: the answer can be learnt, each seed gives other rows."""
    source = random.Random(seed)
    with open(path, "w") as file:
        for _ in range(count):
            a, b = source.randint(0, 99), source.randint(0, 99)
            messages = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


class Workspace:
    """One workspace and the verbs that a user types."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def run(self, *words: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "overnight", "-C", str(self.root), *words],
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=self.environment,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.run(*words, "--json", check=False).stdout))

    def init_long(self, **settings: str) -> Workspace:
        """Make a workspace whose jobs last some seconds, so that there is a middle to be disturbed in."""
        return self.init(**LONG, **settings)

    def init(self, **settings: str) -> Workspace:
        words = [item for key, value in {**SETTINGS, **settings}.items() for item in ("--set", f"{key}={value}")]
        subprocess.run(
            [sys.executable, "-m", "overnight", "init", str(self.root), "--base-model", "builtin:tiny", *words],
            check=True, capture_output=True, timeout=60, env=self.environment,
        )  # fmt: skip
        return self

    def up(self) -> None:
        self.run("up", "--detach", "--no-web")

    def until_idle(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--until-idle", "--no-web", timeout=timeout)

    def wait(self, condition: Callable[[dict[str, Any]], Any], *, timeout: float = 120) -> dict[str, Any]:
        """Poll status until the condition holds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.json("status")
            if condition(status):
                return status
            time.sleep(0.1)
        log = (self.root / "logs" / "daemon.log").read_text()[-3000:]
        raise AssertionError(f"the condition never held; last status {status}\n{log}")

    def wait_for_step(self, step: int, *, timeout: float = 120) -> dict[str, Any]:
        """Wait until a trainer works at or after a global step."""
        return self.wait(lambda status: status["trainer"] and (status["step"] or 0) >= step, timeout=timeout)

    def newest_step(self) -> int:
        return max(int(path.name.partition("-")[2]) for path in (self.root / "current_model").glob("checkpoint-*"))

    def digest(self) -> str:
        """Return a hash over every byte of weights and optimizer in the newest checkpoint."""
        folder = self.root / "current_model" / f"checkpoint-{self.newest_step()}"
        digest = hashlib.sha256()
        names = sorted(p.name for p in folder.iterdir() if p.suffix == ".safetensors" or p.name == "optimizer.pt")
        assert "optimizer.pt" in names
        assert len(names) > 1
        for name in names:
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
        return digest.hexdigest()

    def check_end(self, expected: str) -> None:
        """Check that the three long files were trained to the end, to the expected bytes, and lie where they belong."""
        status = self.json("status")
        assert status["step"] == STEPS
        assert status["queue"]["succeeded"] == 3
        assert self.newest_step() == STEPS
        assert self.digest() == expected
        assert sorted(os.listdir(self.root / "done")) == ["part0.jsonl", "part1.jsonl", "part2.jsonl"]
        assert os.listdir(self.root / "inbox") == []

    def end(self) -> None:
        """End everything of this workspace, whatever state it is in."""
        self.run("down", "--now", check=False)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.root).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def make_workspace(tmp_path: Path) -> Iterator[Callable[[str], Workspace]]:
    """Return a maker of workspaces that all end with the test."""
    made: list[Workspace] = []

    def make(name: str) -> Workspace:
        (tmp_path / name).mkdir(exist_ok=True)  # a test may have mounted a disk there
        made.append(Workspace(tmp_path / name / "workspace"))
        return made[-1]

    yield make
    for workspace in made:
        workspace.end()


@pytest.fixture
def workspace(make_workspace: Callable[[str], Workspace]) -> Workspace:
    return make_workspace("one")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, str]]:
    """Run three files with nothing injected: the bytes that every disturbed run must reach.

    Twelve epochs of 64 rows, so that a job lasts some seconds and there is a middle to be killed in.
    """
    made = Workspace(tmp_path_factory.mktemp("undisturbed") / "workspace").init_long()
    drop_three(made)
    made.until_idle()
    yield made, made.digest()
    made.end()


def drop_three(workspace: Workspace) -> None:
    """Add three files in a known order."""
    for number in range(3):
        path = write_rows(workspace.root.parent / f"part{number}.jsonl", seed=number)
        workspace.run("add", str(path))


@pytest.fixture
def three_files() -> Callable[[Workspace], None]:
    return drop_three


@pytest.fixture
def write_part() -> Callable[[Workspace], None]:
    """Add one file of 64 rows."""

    def add(workspace: Workspace) -> None:
        workspace.run("add", str(write_rows(workspace.root.parent / "part.jsonl", seed=1)))

    return add
