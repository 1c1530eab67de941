"""Steps per second of Overnight against plain TRL: the same rows, model, batch, adapter and saves, in turns.

    python bench/training.py [--rounds 5] [--rows 1600] [--save-every 0 25] [--device cpu]

Overnight runs as a user runs it, daemon and watchdog included; the plain side is bench/plain_trl.py. Both run with the
same number of threads and with deterministic algorithms. Each side leaves the wall-clock time of each of its steps; the
first ones are not counted.

``slowdown`` compares steps per second over all counted steps, saves included, round by round: 0.01 is one percent
slower than plain TRL. On a machine that others use too it is noisy; ``slowdown_quiet_step`` compares the tenth
percentile of the steps, which such noise hardly reaches, and which leaves the saves out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import work

from overnight.demo.product import Product
from overnight.disk import attempts
from overnight.disk.layout import Layout

HERE = Path(__file__).parent
WARM_UP = 20
LIMIT = 0.03


@dataclass(frozen=True)
class Side:
    """What one side did in one round."""

    ends: list[float]  # unix seconds of each step's end
    wall_s: float  # of the whole command

    @property
    def steps_per_s(self) -> float:
        """Steps per second after the warm-up, saves included."""
        counted = self.ends[WARM_UP:]
        return (len(counted) - 1) / (counted[-1] - counted[0])

    @property
    def quiet_step_s(self) -> float:
        """Seconds of a step that nothing disturbed: the tenth percentile."""
        steps = [after - before for before, after in itertools.pairwise(self.ends[WARM_UP:])]
        return statistics.quantiles(steps, n=10)[0]


def run_plain(place: Path, out: Path, *, save_every: int, options: argparse.Namespace) -> Side:
    command = [
        *(sys.executable, str(HERE / "plain_trl.py"), str(place), str(out)),
        *("--save-every", str(save_every), "--device", options.device, "--threads", str(options.threads)),
    ]
    started = time.monotonic()
    run(command, cwd=HERE)
    return Side(json.loads((out / "steps.json").read_text()), time.monotonic() - started)


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
    started = time.monotonic()
    product.until_idle(limit_s=3600)
    wall_s = time.monotonic() - started
    [folder] = sorted(Layout(out).attempts.iterdir())
    return Side([line["at"] for line in attempts.read_metrics(folder, limit=10**6)], wall_s)


def command_line(*words: str) -> list[str]:
    return [sys.executable, "-m", "overnight", *words]


def run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd,
        env={**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
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
    quiet = [ours.quiet_step_s / plain.quiet_step_s - 1 for plain, ours in pairs]
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
        "slowdown_quiet_step": round(statistics.median(quiet), 4),
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
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        scratch = Path(name)
        place = scratch / "work"
        run([sys.executable, str(HERE / "work.py"), str(place), "--rows", str(options.rows)], cwd=HERE)
        for save_every in options.save_every:
            print(json.dumps(measure(place, scratch, save_every=save_every, options=options)), flush=True)


if __name__ == "__main__":
    main()
