"""From SIGKILL of the trainer to its next training step: Overnight beside ``torchrun --max-restarts``.

    python bench/recovery.py [--rounds 2] [--kills 3] [--rows 1600] [--device cpu]

Both sides do the same work (bench/work.py) with the same number of threads and save every five steps. In each round
they run one after the other, so that neither disturbs the other and other work on the machine reaches both alike:
torchrun with bench/plain_trl.py, then Overnight as a user runs it, daemon and watchdog included. Each is killed some
times, once it has made a number of steps; what counts is the time from the signal to the end of the first step of the
next process.

``recovery_s`` are Overnight's, ``cold_s`` the same with ``launcher.spare`` off, ``torchrun_s`` torchrun's: medians, and
the worst. ``ratio`` is the median over that of torchrun. ``next_job_s`` is the time from the last step of a job to the
first one of the next, the saves of the one and the loading of the other included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import work

from overnight.demo import interrupts
from overnight.demo.product import Product
from overnight.disk import attempts
from overnight.disk.layout import Layout

HERE = Path(__file__).parent
SAVE_EVERY = 5
STEPS = 12
"""Before each kill; the checkpoint that is resumed is some steps old."""

LIMIT = 1 / 3
PATIENCE_S = 180.0
ENVIRONMENT = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}

Step = tuple[float, int]
"""When a step ended, and the process that made it."""


class Torchrun:
    """The plain trainer under torchrun."""

    def __init__(self, place: Path, out: Path, options: argparse.Namespace) -> None:
        self.steps_file = out / "steps.txt"
        self.log = out.with_suffix(".log")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1"),
            *("--max-restarts", str(options.kills + 1), str(HERE / "plain_trl.py"), str(place), str(out), "--resume"),
            *("--save-every", str(SAVE_EVERY), "--device", options.device, "--threads", str(options.threads)),
        ]
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                command, cwd=HERE, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def steps(self) -> list[Step]:
        """Return the steps made so far."""
        try:
            lines = self.steps_file.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [(float(line.split()[0]), int(line.split()[1])) for line in lines if line[-1] == "\n"]

    def last_words(self) -> str:
        """Return what it said."""
        return self.log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """Leave nothing running: torchrun ends its worker when it is asked to end."""
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


class Overnight:
    """Overnight as a user runs it."""

    def __init__(self, place: Path, out: Path, options: argparse.Namespace, *, spare: bool, num_jobs: int = 1) -> None:
        settings = {
            "max_length": work.MAX_LENGTH,
            "train.batch_size": work.BATCH_SIZE,
            "train.learning_rate": work.LEARNING_RATE,
            "train.supervise": "all",
            "train.device": options.device,
            "train.threads": options.threads,
            "lora.r": work.LORA_R,
            "lora.alpha": work.LORA_ALPHA,
            "lora.dropout": work.LORA_DROPOUT,
            "checkpoint.every_steps": SAVE_EVERY,
            "checkpoint.keep": 3,
            "disk.min_free_gb": 0,
            "launcher.spare": str(spare).lower(),
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.product = Product(out)
        self.product.follow(["overnight", "init", str(out), "--base-model", str(place / "base"), *words], say=quiet)
        self.layout = Layout(out)
        for number in range(num_jobs):
            self.product.run("add", str(place / ("rows.jsonl" if num_jobs == 1 else f"few{number}.jsonl")))
        self.product.up()

    def steps(self) -> list[Step]:
        """Return the steps made so far."""
        found: list[Step] = []
        for folder in sorted(self.layout.attempts.iterdir()):
            heartbeat = attempts.read_heartbeat(folder)
            if heartbeat is not None:
                found += [(line["at"], heartbeat.pid) for line in attempts.read_metrics(folder, limit=10**6)]
        return found

    def last_words(self) -> str:
        """Return what it said."""
        return self.layout.log("daemon").read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """Leave nothing running."""
        self.product.down()


def quiet(_: str) -> None:
    """Say nothing."""


def wait(side: Torchrun | Overnight, condition: Callable[[], Any], *, what: str) -> Any:
    """Poll until something holds; return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{type(side).__name__} never came to {what}:\n{side.last_words()}")
        time.sleep(0.02)
    return found


def kill_and_measure(side: Torchrun | Overnight, *, kills: int) -> list[float]:
    """Kill the process that trains some times; return how long each took to train again."""
    found: list[float] = []
    for _ in range(kills):
        made = len(side.steps())
        steps = wait(side, lambda least=made + STEPS: len(now := side.steps()) >= least and now, what="its steps")
        found.append(kill(side, steps[-1][1]))
    return found


def kill(side: Torchrun | Overnight, trainer: int) -> float:
    """Kill the process that trains; return how long it took until another one had made a step."""
    os.kill(trainer, signal.SIGKILL)
    at = time.time()
    again = wait(side, lambda: [one for one in side.steps() if one[1] != trainer and one[0] > at], what="a step")
    return float(again[0][0] - at)


def change_jobs(side: Overnight) -> float:
    """Return how long it takes from the last step of the first job to the first step of the second one."""
    layout = side.layout

    def both() -> Any:
        told = [attempts.read_metrics(layout.attempt(f"{job:06}-01"), limit=10**6) for job in (1, 2)]
        return told if all(told) else None

    first, second = wait(side, both, what="the second job")
    return float(second[0]["at"] - first[-1]["at"])


def play(place: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Run each side once; return what was measured."""
    found: dict[str, list[float]] = {}
    makers: dict[str, Callable[[], Torchrun | Overnight]] = {
        "torchrun": lambda: Torchrun(place, folder / "torchrun", options),
        "recovery": lambda: Overnight(place, folder / "warm", options, spare=True),
        "cold": lambda: Overnight(place, folder / "cold", options, spare=False),
    }
    for name, make in makers.items():
        side = make()
        try:
            found[name] = kill_and_measure(side, kills=options.kills)
        finally:
            side.end()
        told = ", ".join(f"{seconds:.2f}" for seconds in found[name])
        print(f"  {name}: {told} s", file=sys.stderr, flush=True)
    for name, spare in (("next_job", True), ("next_job_cold", False)):
        jobs = Overnight(place, folder / name, options, spare=spare, num_jobs=2)
        try:
            found[name] = [change_jobs(jobs)]
        finally:
            jobs.end()
        print(f"  {name}: {found[name][0]:.2f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="From SIGKILL of the trainer to its next training step.")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3, help="of each side in a round")
    parser.add_argument("--rows", type=int, default=1600, help="of the file that is trained; a step takes 8")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with interrupts.interruptible(), tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        scratch = Path(name)
        place = scratch / "work"
        subprocess.run(
            [sys.executable, str(HERE / "work.py"), str(place), "--rows", str(options.rows + 320)],
            check=True, capture_output=True, env=ENVIRONMENT,
        )  # fmt: skip
        lines = (place / "rows.jsonl").read_text().splitlines(keepends=True)
        (place / "rows.jsonl").write_text("".join(lines[: options.rows]))
        for number in range(2):
            (place / f"few{number}.jsonl").write_text("".join(lines[options.rows + number * 160 :][:160]))
        rounds = []
        for number in range(options.rounds):
            folder = scratch / f"round{number}"
            folder.mkdir()
            rounds.append(play(place, folder, options))
    merged = {name: [value for found in rounds for value in found[name]] for name in rounds[0]}
    middle = {name: statistics.median(values) for name, values in merged.items()}
    ratio = middle["recovery"] / middle["torchrun"]
    print(
        json.dumps(
            {
                "bench": "recovery",
                "kills": len(merged["recovery"]),
                "device": options.device,
                "torchrun_s": round(middle["torchrun"], 2),
                "recovery_s": round(middle["recovery"], 2),
                "recovery_max_s": round(max(merged["recovery"]), 2),
                "cold_s": round(middle["cold"], 2),
                "ratio": round(ratio, 3),
                "next_job_s": round(middle["next_job"], 2),
                "next_job_cold_s": round(middle["next_job_cold"], 2),
                "limit": round(LIMIT, 3),
                "ok": ratio <= LIMIT,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started has been ended")
