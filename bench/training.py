"""Steps per second of Overnight against plain TRL: the same rows, model, batch, adapter and saves, in turns.

    python bench/training.py [--rounds 5] [--rows 1600] [--save-every 0 25] [--device cpu]

Overnight runs as a user runs it, daemon and watchdog included; the plain side is bench/plain_trl.py. Both run with the
same number of threads and with deterministic algorithms. Each side leaves the wall-clock time of each of its steps; the
first ones are not counted.

``slowdown`` compares steps per second over all counted steps, saves included, round by round: 0.01 is one percent
slower than plain TRL. On a machine that others use too it is noisy; ``slowdown_cpu`` compares the processor time that
the training process spent on the same steps, which others disturb far less. ``daemon_share`` is what the daemon takes
of one core beside it.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import work

from overnight.demo import interrupts
from overnight.demo.product import Product
from overnight.disk import attempts, files
from overnight.disk.layout import Layout

HERE = Path(__file__).parent
WARM_UP = 20
LIMIT = 0.03
READ_EVERY_S = 0.05
ENVIRONMENT = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


class CpuClock(threading.Thread):
    """Reads, a few times in each step, how much processor time a process has used."""

    def __init__(self, find_pid: Callable[[], int | None]) -> None:
        super().__init__(daemon=True)
        self.find_pid = find_pid
        self.readings: list[tuple[float, float]] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        """Read until told that it is over."""
        process: psutil.Process | None = None
        while not self.is_over.wait(READ_EVERY_S):
            try:
                if process is None and (pid := self.find_pid()) is not None:
                    process = psutil.Process(pid)
                if process is not None:
                    used = process.cpu_times()
                    self.readings.append((time.time(), used.user + used.system))
            except psutil.Error:
                continue

    def used_between(self, start: float, end: float) -> float:
        """Return the seconds of processor time used between two moments."""
        return self._at(end) - self._at(start)

    def _at(self, moment: float) -> float:
        after = bisect.bisect_left(self.readings, (moment, 0.0))
        after = min(max(after, 1), len(self.readings) - 1)
        (t0, c0), (t1, c1) = self.readings[after - 1], self.readings[after]
        return c0 + (c1 - c0) * min(1.0, max(0.0, (moment - t0) / (t1 - t0)))


@dataclass(frozen=True)
class Side:
    """What one side did in one round."""

    ends: list[float]  # unix seconds of each step's end
    wall_s: float  # of the whole command
    clock: CpuClock  # of the process that trains
    beside: CpuClock | None = None  # of the daemon

    @property
    def steps_per_s(self) -> float:
        """Steps per second after the warm-up, saves included."""
        counted = self.ends[WARM_UP:]
        return (len(counted) - 1) / (counted[-1] - counted[0])

    @property
    def cpu_s(self) -> float:
        """Processor time of all counted steps."""
        return self.clock.used_between(self.ends[WARM_UP], self.ends[-1])

    @property
    def daemon_share(self) -> float:
        """What the daemon takes of one core."""
        span = self.ends[-1] - self.ends[WARM_UP]
        return 0.0 if self.beside is None else self.beside.used_between(self.ends[WARM_UP], self.ends[-1]) / span


def run_plain(place: Path, out: Path, *, save_every: int, options: argparse.Namespace) -> Side:
    command = [
        *(sys.executable, str(HERE / "plain_trl.py"), str(place), str(out)),
        *("--save-every", str(save_every), "--device", options.device, "--threads", str(options.threads)),
    ]
    started = time.monotonic()
    child = subprocess.Popen(
        command, cwd=HERE, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    clock = CpuClock(lambda: child.pid)
    clock.start()
    try:
        _, errors = child.communicate()
    finally:
        child.kill()
    clock.is_over.set()
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{errors.decode()[-4000:]}")
    return Side(json.loads((out / "steps.json").read_text()), time.monotonic() - started, clock)


def run_overnight(place: Path, out: Path, *, save_every: int, options: argparse.Namespace) -> Side:
    settings = {
        "max_length": work.MAX_LENGTH,
        "train.batch_size": work.BATCH_SIZE,
        "train.learning_rate": work.LEARNING_RATE,
        "train.supervise": "all",  # as the plain side: loss on every token
        "train.device": options.device,
        "train.threads": options.threads,
        "lora.r": work.LORA_R,
        "lora.alpha": work.LORA_ALPHA,
        "lora.dropout": work.LORA_DROPOUT,
        "checkpoint.every_steps": save_every or 10**6,
        "checkpoint.keep": 3,
        "disk.min_free_gb": 0,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run([*command_line("init", str(out), "--base-model", str(place / "base")), *words])
    product = Product(out)
    product.run("add", str(place / "rows.jsonl"))
    layout = Layout(out)
    clock = CpuClock(lambda: pid_of(layout.model_lock))
    beside = CpuClock(lambda: pid_of(layout.daemon_lock))
    for reader in (clock, beside):
        reader.start()
    started = time.monotonic()
    product.until_idle(limit_s=3600)
    wall_s = time.monotonic() - started
    for reader in (clock, beside):
        reader.is_over.set()
    [folder] = sorted(layout.attempts.iterdir())
    return Side([line["at"] for line in attempts.read_metrics(folder, limit=10**6)], wall_s, clock, beside)


def pid_of(lock: Path) -> int | None:
    holder = files.lock_holder(lock)
    return int(holder["pid"]) if holder and "pid" in holder else None


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "overnight", *words]


def run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd, env=ENVIRONMENT)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def measure(place: Path, scratch: Path, *, save_every: int, options: argparse.Namespace) -> dict[str, object]:
    """Run both sides in turns and return one line of figures."""
    pairs: list[tuple[Side, Side]] = []
    for number in range(options.rounds):
        folder = scratch / f"save{save_every}-{number}"
        folder.mkdir()
        sides = {"plain": run_plain, "ours": run_overnight}
        order = ["plain", "ours"] if number % 2 == 0 else ["ours", "plain"]  # neither always runs on the warmer machine
        done = {name: sides[name](place, folder / name, save_every=save_every, options=options) for name in order}
        pairs.append((done["plain"], done["ours"]))
        told = f"{done['plain'].steps_per_s:.2f} plain, {done['ours'].steps_per_s:.2f} overnight"
        print(f"  save every {save_every or 'never'}, round {number + 1}: {told} steps/s", file=sys.stderr, flush=True)
    slowdowns = [plain.steps_per_s / ours.steps_per_s - 1 for plain, ours in pairs]
    in_cpu = [ours.cpu_s / plain.cpu_s - 1 for plain, ours in pairs]
    return {
        "bench": "training",
        "save_every": save_every,
        "device": options.device,
        "threads": options.threads,
        "steps": len(pairs[0][0].ends),
        "rounds": options.rounds,
        "plain_steps_per_s": round(statistics.median(plain.steps_per_s for plain, _ in pairs), 3),
        "steps_per_s": round(statistics.median(ours.steps_per_s for _, ours in pairs), 3),
        "slowdown": round(statistics.median(slowdowns), 4),
        "slowdown_min": round(min(slowdowns), 4),
        "slowdown_max": round(max(slowdowns), 4),
        "slowdown_cpu": round(statistics.median(in_cpu), 4),
        "slowdown_cpu_min": round(min(in_cpu), 4),
        "slowdown_cpu_max": round(max(in_cpu), 4),
        "daemon_share": round(statistics.median(ours.daemon_share for _, ours in pairs), 4),
        "plain_wall_s": round(statistics.median(plain.wall_s for plain, _ in pairs), 1),
        "wall_s": round(statistics.median(ours.wall_s for _, ours in pairs), 1),
        "limit": LIMIT,
        "ok": statistics.median(slowdowns) <= LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second of Overnight against plain TRL.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1600, help="of one epoch; a step takes 8")
    parser.add_argument("--save-every", type=int, nargs="+", default=[0, 25], help="steps; 0: only at the end")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.rows < (WARM_UP + 10) * work.BATCH_SIZE:
        parser.error(f"--rows must be at least {(WARM_UP + 10) * work.BATCH_SIZE}")
    with interrupts.interruptible(), tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        scratch = Path(name)
        place = scratch / "work"
        run([sys.executable, str(HERE / "work.py"), str(place), "--rows", str(options.rows)], cwd=HERE)
        for save_every in options.save_every:
            print(json.dumps(measure(place, scratch, save_every=save_every, options=options)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started has been ended")
