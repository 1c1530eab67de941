"""What the five things that are always safe cost a training: add, status, logs, doctor, and asking for the GPU.

    python bench/always_safe.py [--rounds 48] [--window 3] [--every 5] [--threads 1]

One real training (builtin:tiny) on this machine, in rounds of four windows, in a new order each round: nobody looks;
nobody looks, once more; each of the five things is done every few seconds, as a person or a dashboard does; all five in
a tight loop. Told is how much slower the steps are than in the quiet windows of the same round, as the median over the
rounds with its 95 % interval (bootstrap). The second quiet window is held against the first in the same way: what it
shows is the noise of the machine. Where the steps lose their time is told too: what the trainer waited for a core
(/proc/PID/task/*/schedstat), and its CPU time a step (caches and memory shared with the commands). Then the same files
are trained undisturbed, and weights and optimizer of the same step are compared, byte by byte.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = {
    "train.batch_size": 8, "train.device": "cpu", "train.epochs": 100, "max_length": 128,
    "checkpoint.every_steps": 100, "checkpoint.keep": 100, "queue.settle_s": 0.2, "disk.min_free_gb": 0,
}  # fmt: skip
MODES = ("quiet", "again", "cadence", "tight")
LIMIT_PERCENT = 5.0
OVERNIGHT = str(Path(sys.executable).with_name("overnight"))


class Bench:
    """One workspace and what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "workspace"
        self.num_added = self.num_done = self.pid = 0
        self.turns = dict.fromkeys(MODES, 0)

    def overnight(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        command = [OVERNIGHT, "-C", str(self.root), *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    def begin(self, rows: int, threads: int | None) -> None:
        """Make the workspace and start the training."""
        settings = SETTINGS | {"train.threads": json.dumps(threads)}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        init = [OVERNIGHT, "init", str(self.root), "--base-model", "builtin:tiny", *words]
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

    def window(self, mode: str, seconds: float, every_s: float) -> Window:
        """Let one window pass."""
        before, begin = clocks(self.pid), time.time()
        done = 0
        while (now := time.time()) < begin + seconds:
            if mode == "tight" or (mode == "cadence" and now >= begin + done * every_s / 5):
                self.do(self.turns[mode])  # where the last window of this kind left off
                self.turns[mode] += 1
                done += 1
            else:
                time.sleep(0.02)
        after, end = clocks(self.pid), time.time()
        time.sleep(0.3)  # the lines of the last steps are written
        steps = sum(begin <= moment < end for moment in self.ends_of_steps())
        busy, waited = (late - early for early, late in zip(before, after, strict=True))
        return Window(steps / (end - begin), 1000 * busy / steps, 100 * waited / (end - begin))


@dataclass(frozen=True)
class Window:
    """What one window showed."""

    pace: float
    """Steps a second."""
    cpu_ms: float
    """Milliseconds of CPU that one step took."""
    waited: float
    """Per cent of the time in which the trainer was ready and had no core."""


def clocks(pid: int) -> tuple[float, float]:
    """Return the seconds that a process ran and that it waited for a core, over all its threads."""
    ran = waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        one, other, _ = path.read_text().split()
        ran, waited = ran + int(one), waited + int(other)
    return ran / 1e9, waited / 1e9


def interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median: bootstrap, always with the same draws."""
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(values, k=len(values))) for _ in range(4000))
    return medians[100], medians[-100]


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
    windows: dict[str, list[Window]] = {mode: [] for mode in MODES}
    order = random.Random(0)
    try:
        bench.begin(1600, options.threads)
        wait(lambda: len(bench.ends_of_steps()) > 50)
        bench.pid = json.loads(bench.overnight("status", "--json").stdout)["trainer"]["pid"]
        for number in range(options.rounds):
            for mode in order.sample(MODES, len(MODES)):
                windows[mode].append(bench.window(mode, options.window, options.every))
            paces = ", ".join(f"{mode} {windows[mode][-1].pace:.1f}" for mode in MODES)
            print(f"round {number + 1} of {options.rounds}, steps/s: {paces}", file=sys.stderr, flush=True)
        bench.overnight("down")
    finally:
        bench.overnight("down", "--now")
    step = newest(bench.root) // 100 * 100
    print(f"the same undisturbed, to step {step}", file=sys.stderr, flush=True)
    other = Bench(folder / "undisturbed")
    try:
        other.begin(1600, options.threads)
        wait(lambda: newest(other.root) >= step, 3600)
    finally:
        other.overnight("down", "--now")
    is_equal = step > 0 and digest(bench.root, step) == digest(other.root, step)
    quiet = [(one.pace + two.pace) / 2 for one, two in zip(windows["quiet"], windows["again"], strict=True)]
    for mode in MODES[1:]:
        beside = [one.pace for one in windows["quiet"]] if mode == "again" else quiet
        slower = [100 * (1 - one.pace / other) for one, other in zip(windows[mode], beside, strict=True)]
        low, high = interval(slower)
        what = "with nobody looking: the noise" if mode == "again" else f"beside the five always safe things, {mode}"
        print(json.dumps({
            "measure": f"training slower {what}", "unit": "percent", "value": round(statistics.median(slower), 2),
            "from_95": round(low, 2), "to_95": round(high, 2), "rounds": options.rounds, "window_s": options.window,
            "steps_per_s": typical(windows, mode, "pace"), "quiet_steps_per_s": typical(windows, "quiet", "pace"),
            "cpu_ms_per_step": typical(windows, mode, "cpu_ms"), "quiet_cpu_ms": typical(windows, "quiet", "cpu_ms"),
            "no_core_percent": typical(windows, mode, "waited"), "quiet_no_core": typical(windows, "quiet", "waited"),
            "every_s": options.every if mode == "cadence" else 0, "things_done": bench.num_done,
            "same_bytes_at_step": step if is_equal else None, "cores": os.cpu_count(),
            "limit": None if mode == "again" else LIMIT_PERCENT,
            "ok": is_equal and (mode == "again" or high < LIMIT_PERCENT),
        }), flush=True)  # fmt: skip


def typical(windows: dict[str, list[Window]], mode: str, name: str) -> float:
    """Return the median over the windows of one mode."""
    return round(statistics.median(getattr(one, name) for one in windows[mode]), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=48)
    parser.add_argument("--window", type=float, default=3.0, metavar="S")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="how often each of the five is done")
    parser.add_argument("--threads", type=int, help="of the trainer; without it all cores, as in a new workspace")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each command compiles all that it loads, as for no user
    folder = Path(tempfile.mkdtemp(prefix="overnight-bench-"))
    try:
        measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
