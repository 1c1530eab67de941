"""One workspace driven as a user drives it: the command line, the inbox, nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.members import members

COMMON = {
    "train.threads": "1",
    "train.batch_size": "4",
    "train.learning_rate": "0.002",
    "lora.dropout": "0.1",
    "max_length": "128",
    "train.device": "cpu",
    "queue.settle_s": "0.05",
    "queue.poll_interval_s": "0.1",
    "disk.min_free_gb": "0",
    # a guard that is killed on purpose every few seconds is not held back, and what is left stopped is seen soon
    "watch.max_restarts": "1000",
    "watch.daemon_dead_s": "3",
    "watch.no_progress_s": "6",
    "watch.save_stuck_s": "6",
    "watch.eval_stuck_s": "8",
    "watch.stuck_s": "8",
    "watch.grace_s": "2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is trained: with which settings, on how long files, and what may be done to it."""

    name: str
    rows: int
    settings: dict[str, str]
    simulated: str | None = None
    without: frozenset[str] = frozenset()  # kinds, victims and moments that it has not
    bound_s: float = 60.0  # no progress for longer is not recovered
    patience_s: float = 3.0  # a moment that does not come by itself is brought about then
    at_hand: int = 3  # files that are there to be trained


SIMULATED = Kind(
    name="simulated trainer (a chain of hashes)",
    rows=64,
    settings={"train.epochs": "4", "checkpoint.every_steps": "4", "checkpoint.keep": "3", "watch.load_stuck_s": "8"},
    simulated="step_s=0.01,load_s=0.04",
    without=frozenset({"evaluate", "spare"}),
    patience_s=1.5,
)
"""64 steps a file, of 10 ms each."""

REAL = Kind(
    name="real trainer (builtin:tiny, LoRA with dropout)",
    rows=72,
    settings={
        "train.epochs": "10", "checkpoint.every_steps": "8", "checkpoint.keep": "3", "watch.load_stuck_s": "40",
        "evaluation.holdout": "0.11", "evaluation.every_steps": "64", "evaluation.max_examples": "8",
    },
    bound_s=150.0,
    patience_s=4.0,
)  # fmt: skip
"""160 steps a file."""


@dataclass
class Workspace:
    """One workspace and the verbs that a user types."""

    root: Path
    kind: Kind
    python_path: str = ""  # where something broken stands before the product
    log: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        given = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        given.pop("OVERNIGHT_SIMULATED", None)
        if self.kind.simulated is not None:
            given["OVERNIGHT_SIMULATED"] = self.kind.simulated
        if self.python_path:
            given["PYTHONPATH"] = os.pathsep.join(filter(None, [self.python_path, os.environ.get("PYTHONPATH", "")]))
        return given

    def run(self, *words: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "overnight", "-C", str(self.root), *words],
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=self.environment,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"overnight {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.run(*words, "--json", check=False).stdout))

    def init(self, **more: str) -> Workspace:
        settings = {**COMMON, **self.kind.settings, **more}
        words = [item for key, value in settings.items() for item in ("--set", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "overnight", "init", str(self.root), "--base-model", "builtin:tiny", *words],
            capture_output=True, text=True, timeout=120, env=self.environment,
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"init: {done.stdout}\n{done.stderr}")
        return self

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--detach", "--no-web", check=False)

    def add(self, *numbers: int) -> None:
        """Queue files by the command."""
        sources = [self.root.parent / "sources" / name_of(number) for number in numbers]
        for number, source in zip(numbers, sources, strict=True):
            source.parent.mkdir(exist_ok=True)
            source.write_bytes(rows_of(number, self.kind.rows))
        self.run("add", *map(str, sources))

    def drop(self, number: int) -> None:
        """Put a file into the inbox, whole at once."""
        hidden = self.root / "inbox" / f".{name_of(number)}.part"
        hidden.write_bytes(rows_of(number, self.kind.rows))
        hidden.rename(self.root / "inbox" / name_of(number))

    def done(self) -> list[str]:
        return sorted(os.listdir(self.root / "done"))

    def inbox(self) -> list[str]:
        return [name for name in os.listdir(self.root / "inbox") if not name.startswith(".")]

    def checkpoints(self) -> list[int]:
        """Return the steps of what has a checkpoint's name, oldest first."""
        names = os.listdir(self.root / "current_model")
        return sorted(int(name[11:]) for name in names if name.startswith("checkpoint-") and name[11:].isdigit())

    def newest(self) -> Path:
        return self.root / "current_model" / f"checkpoint-{self.checkpoints()[-1]}"

    def tail(self) -> str:
        """Return what may tell why something went wrong."""
        parts = [f"members: {members(self.root)}"]
        for name in ("status/training_status.json", ".overnight/daemon.json"):
            parts.append(f"--- {name}\n" + _end_of(self.root / name, 1500))
        for name in ("daemon", "watchdog", "anti_stuck"):
            parts.append(f"--- {name}.log\n" + _end_of(self.root / "logs" / f"{name}.log", 3000))
        return "\n".join(parts)

    def end(self) -> None:
        """End everything of this workspace, whatever state it is in."""
        for _ in range(50):
            there = members(self.root)
            for member in there:
                member.send(signal.SIGKILL)
            if not there:
                return
            time.sleep(0.05)


def name_of(number: int) -> str:
    return f"part{number:04d}.jsonl"


def rows_of(number: int, count: int) -> bytes:
    """Return chat rows of sums: the answer can be learnt, each number gives other rows."""
    source = random.Random(number)
    lines = []
    for _ in range(count):
        a, b = source.randint(0, 99), source.randint(0, 99)
        messages = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines).encode()


def _end_of(path: Path, count: int) -> str:
    try:
        return path.read_text(errors="replace")[-count:]
    except OSError as error:
        return str(error)
