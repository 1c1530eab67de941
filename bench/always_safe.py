"""What the five things that are always safe cost a training: add, status, logs, doctor, and asking for the GPU.

    python bench/always_safe.py [--rounds 8] [--window 8] [--every 5]

One real training (builtin:tiny) on this machine; windows of some seconds follow each other in turn: nobody looks; each
of the five things is done every few seconds, as a person or a dashboard does; all five in a tight loop. Told is how
much slower the steps are than in the quiet windows beside them, as the median over the rounds. Then the same files are
trained undisturbed, and weights and optimizer of the same step are compared, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = {
    "train.batch_size": 8, "train.threads": 1, "train.device": "cpu", "train.epochs": 100, "max_length": 128,
    "checkpoint.every_steps": 100, "checkpoint.keep": 100, "queue.settle_s": 0.2, "disk.min_free_gb": 0,
}  # fmt: skip
MODES = ("quiet", "cadence", "tight")
LIMIT_PERCENT = 5.0


class Bench:
    """One workspace and what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "workspace"
        self.num_added = self.num_done = 0

    def overnight(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        command = [sys.executable, "-m", "overnight", "-C", str(self.root), *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def begin(self, rows: int) -> None:
        """Make the workspace and start the training."""
        words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
        init = [sys.executable, "-m", "overnight", "init", str(self.root), "--base-model", "builtin:tiny", *words]
        subprocess.run(init, check=True, capture_output=True)
        (self.folder / "rows.jsonl").write_text("".join(row(number) for number in range(rows)))
        self.overnight("add", str(self.folder / "rows.jsonl"))
        self.overnight("up", "--detach", "--no-web")

    def ends_of_steps(self) -> list[float]:
        """Return when each step ended."""
        for path in (self.root / ".overnight" / "attempts").glob("*/metrics.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            return [line["at"] for line in lines if "loss" in line]
        return []

    def do(self, number: int) -> None:
        """Do one of the five things."""
        what = number % 5
        if what == 0:
            self.num_added += 1
            path = self.folder / f"more{self.num_added}.jsonl"
            path.write_text(row(self.num_added))
            self.overnight("add", str(path), "--priority", "low")
        elif what == 4:
            smi = shutil.which("nvidia-smi")
            subprocess.run([smi] if smi else ["cat", "/proc/meminfo"], capture_output=True, check=False)
        else:
            self.overnight(("status", "logs", "doctor")[what - 1])
        self.num_done += 1

    def window(self, mode: str, seconds: float, every_s: float) -> float:
        """Let one window pass; return the steps a second in it."""
        begin = time.time()
        number = 0
        while (now := time.time()) < begin + seconds:
            if mode == "tight" or (mode == "cadence" and now >= begin + number * every_s / 5):
                self.do(number)
                number += 1
            else:
                time.sleep(0.02)
        end = time.time()
        time.sleep(0.3)
        return sum(begin <= moment < end for moment in self.ends_of_steps()) / (end - begin)


def row(number: int) -> str:
    source = random.Random(number)
    asked, answer = source.randint(0, 99), source.randint(100, 999)
    messages = [{"role": "user", "content": f"{asked}?" * 5}, {"role": "assistant", "content": str(answer) * 8}]
    return json.dumps({"messages": messages}) + "\n"


def digest(root: Path, step: int) -> str:
    """Return the hash of weights and optimizer at a step."""
    folder = root / "current_model" / f"checkpoint-{step}"
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".pt"))
    assert "optimizer.pt" in names
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def newest(root: Path) -> int:
    return max((int(path.name.partition("-")[2]) for path in (root / "current_model").glob("checkpoint-*")), default=0)


def wait(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the training does not get on")
        time.sleep(0.2)


def measure(options: argparse.Namespace, folder: Path) -> None:
    (folder / "disturbed").mkdir()
    (folder / "undisturbed").mkdir()
    bench = Bench(folder / "disturbed")
    try:
        bench.begin(1600)
        wait(lambda: len(bench.ends_of_steps()) > 50)
        paces: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(options.rounds):
            for mode in MODES if number % 2 else MODES[::-1]:
                paces[mode].append(bench.window(mode, options.window, options.every))
        bench.overnight("down")
    finally:
        bench.overnight("down", "--now")
    step = newest(bench.root) // 100 * 100
    other = Bench(folder / "undisturbed")
    try:
        other.begin(1600)
        wait(lambda: newest(other.root) >= step, 1800)
    finally:
        other.overnight("down", "--now")
    is_equal = step > 0 and digest(bench.root, step) == digest(other.root, step)
    for mode in MODES[1:]:
        slower = [100 * (1 - one / quiet) for one, quiet in zip(paces[mode], paces["quiet"], strict=True)]
        print(json.dumps({
            "measure": f"training slower beside the five always safe things, {mode}", "unit": "percent",
            "value": round(statistics.median(slower), 2), "lowest": round(min(slower), 2),
            "highest": round(max(slower), 2),
            "quiet_steps_per_s": round(statistics.median(paces["quiet"]), 1), "rounds": options.rounds,
            "window_s": options.window, "every_s": options.every if mode == "cadence" else 0,
            "things_done": bench.num_done, "same_bytes_at_step": step if is_equal else None, "cores": os.cpu_count(),
            "limit": LIMIT_PERCENT if mode == "cadence" else None,
            "ok": is_equal and (mode != "cadence" or statistics.median(slower) < LIMIT_PERCENT),
        }), flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--window", type=float, default=8.0, metavar="S")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="how often each of the five is done")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="overnight-bench-"))
    try:
        measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
