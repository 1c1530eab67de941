"""Steps per second of Overnight against plain TRL: the same rows, model, batch, adapter and saves, in turns.

    python bench/training.py [--rounds 3] [--rows 2400] [--save-every 0 25] [--device cpu]

Overnight runs as a user runs it, daemon and watchdog included; the plain side is bench/plain_trl.py. Both run with the
same number of threads and with deterministic algorithms. In each round both are started together, and after a warm-up
they take turns of half a second (bench/turns.py), so that other work on the machine reaches both alike.

``slowdown`` compares steps per second of the turns, saves included: 0.01 is one percent slower than plain TRL.
``slowdown_cpu`` compares processor time a step. Both are the median over rounds, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import work
from turns import Player, take_turns

from overnight.demo import interrupts
from overnight.demo.product import Product
from overnight.disk import attempts, files
from overnight.disk.layout import Layout

HERE = Path(__file__).parent
WARM_UP = 20
LIMIT = 0.03
ENVIRONMENT = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


class Plain:
    """The plain side of one round."""

    def __init__(self, place: Path, out: Path, *, save_every: int, options: argparse.Namespace) -> None:
        self.steps_file = out / "steps.txt"
        self.errors = out.with_suffix(".log")
        command = [
            *(sys.executable, str(HERE / "plain_trl.py"), str(place), str(out)),
            *("--save-every", str(save_every), "--device", options.device, "--threads", str(options.threads)),
        ]
        with open(self.errors, "wb") as log:
            self.child = subprocess.Popen(
                command, cwd=HERE, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.player = Player("plain TRL", lambda: self.child.pid, lambda: len(self.ends()))

    def ends(self) -> list[float]:
        """Return when each step ended."""
        try:
            return [
                float(line.split()[0])
                for line in self.steps_file.read_text().splitlines(keepends=True)
                if line[-1] == "\n"
            ]
        except FileNotFoundError:
            return []

    def is_broken(self) -> bool:
        """Return whether it has ended: it never does before its turns are over."""
        return self.child.poll() is not None

    def end(self) -> None:
        """Leave nothing running."""
        self.child.kill()
        self.child.wait()


class Ours:
    """Overnight's side of one round."""

    def __init__(self, place: Path, out: Path, *, save_every: int, options: argparse.Namespace) -> None:
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
        init = ["overnight", "init", str(out), "--base-model", str(place / "base"), *words]
        self.product = Product(out)
        self.product.follow(init, say=lambda _: None)
        self.layout = Layout(out)
        self.product.run("add", str(place / "rows.jsonl"))
        self.product.up()
        self.player = Player("overnight", self.find_pid, self.steps_done)

    def find_pid(self) -> int | None:
        """Return the trainer's pid."""
        holder = files.lock_holder(self.layout.model_lock)
        return int(holder["pid"]) if holder and "pid" in holder else None

    def steps_done(self) -> int:
        """Return the step that the trainer last told of."""
        heartbeats = [attempts.read_heartbeat(folder) for folder in self.layout.attempts.iterdir()]
        return max((heartbeat.step for heartbeat in heartbeats if heartbeat is not None), default=0)

    def ends(self) -> list[float]:
        """Return when each step ended."""
        [folder] = self.layout.attempts.iterdir()  # one attempt: nothing went wrong
        return [line["at"] for line in attempts.read_metrics(folder, limit=10**6)]

    def end(self) -> None:
        """Leave nothing running."""
        self.product.down()


def play(
    place: Path, folder: Path, *, save_every: int, cores: list[int], options: argparse.Namespace
) -> dict[str, float]:
    """Let both sides take turns once; return what each did a step."""
    plain = Plain(place, folder / "plain", save_every=save_every, options=options)
    try:
        ours = Ours(place, folder / "ours", save_every=save_every, options=options)
        try:
            until = options.rows // work.BATCH_SIZE - 5
            take_turns(
                [plain.player, ours.player], warm_up=WARM_UP, until=until, cores=cores, is_broken=plain.is_broken
            )
            wait_for_the_rest(ours)
            found: dict[str, float] = {}
            for name, player, ends in (("plain", plain.player, plain.ends()), ("ours", ours.player, ours.ends())):
                steps = player.steps_in_turns(ends)
                found |= {
                    f"{name}_steps": steps,
                    f"{name}_steps_per_s": steps / player.active_s,
                    f"{name}_cpu_s": player.cpu_s / steps,
                }
            return found
        except TimeoutError as error:
            raise SystemExit(f"did not get going: {error}\n{plain.errors.read_text()[-4000:]}") from error
        finally:
            ours.end()
    finally:
        plain.end()


def wait_for_the_rest(ours: Ours) -> None:
    """Wait until the numbers that the trainer holds back are written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and ours.ends()[-1] < ours.player.turns[-1][1]:
        if files.lock_holder(ours.layout.model_lock) is None:
            return
        time.sleep(0.1)


def measure(place: Path, scratch: Path, *, save_every: int, options: argparse.Namespace) -> dict[str, object]:
    """Play some rounds and return one line of figures."""
    rounds = []
    for number in range(options.rounds):
        folder = scratch / f"save{save_every}-{number}"
        folder.mkdir()
        cores = [(number + core) % (os.cpu_count() or 1) for core in range(options.threads)]
        found = play(place, folder, save_every=save_every, cores=cores, options=options)
        told = f"{found['plain_steps_per_s']:.2f} plain, {found['ours_steps_per_s']:.2f} overnight"
        print(f"  save every {save_every or 'never'}, round {number + 1}: {told} steps/s", file=sys.stderr, flush=True)
        rounds.append(found)
    slowdowns = [found["plain_steps_per_s"] / found["ours_steps_per_s"] - 1 for found in rounds]
    in_cpu = [found["ours_cpu_s"] / found["plain_cpu_s"] - 1 for found in rounds]
    return {
        "bench": "training",
        "save_every": save_every,
        "device": options.device,
        "threads": options.threads,
        "rounds": options.rounds,
        "steps": int(sum(found["ours_steps"] for found in rounds)),
        "plain_steps_per_s": round(statistics.median(found["plain_steps_per_s"] for found in rounds), 3),
        "steps_per_s": round(statistics.median(found["ours_steps_per_s"] for found in rounds), 3),
        "slowdown": round(statistics.median(slowdowns), 4),
        "slowdown_min": round(min(slowdowns), 4),
        "slowdown_max": round(max(slowdowns), 4),
        "slowdown_cpu": round(statistics.median(in_cpu), 4),
        "slowdown_cpu_min": round(min(in_cpu), 4),
        "slowdown_cpu_max": round(max(in_cpu), 4),
        "limit": LIMIT,
        "ok": statistics.median(slowdowns) <= LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second of Overnight against plain TRL.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2400, help="of one epoch; a step takes 8")
    parser.add_argument("--save-every", type=int, nargs="+", default=[0, 25], help="steps; 0: only at the end")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.rows < (WARM_UP + 20) * work.BATCH_SIZE:
        parser.error(f"--rows must be at least {(WARM_UP + 20) * work.BATCH_SIZE}")
    with interrupts.interruptible(), tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        scratch = Path(name)
        place = scratch / "work"
        subprocess.run(
            [sys.executable, str(HERE / "work.py"), str(place), "--rows", str(options.rows)],
            check=True, capture_output=True, env=ENVIRONMENT,
        )  # fmt: skip
        for save_every in options.save_every:
            print(json.dumps(measure(place, scratch, save_every=save_every, options=options)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started has been ended")
