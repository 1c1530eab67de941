"""What continuous integration cannot do: the main job on a CUDA machine, with a table of what was seen.

    scripts/gpu_check [--device cuda|cpu] [--only exact-lora exact-full qlora demo speed] [--keep DIR]

exact-lora, exact-full: a file is trained undisturbed, and again with a SIGKILL of the trainer in the middle; weights
and optimizer must end with the same bytes. qlora: the same with a 4-bit base. demo: ``overnight demo``. speed: steps a
second against plain TRL. With ``--device cpu`` everything but qlora runs without a GPU, most of it on a smaller model:
a rehearsal.

Exit codes: 0 all passed, 1 something did not, 75 there is no CUDA device here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from overnight.demo import interrupts
from overnight.demo.product import Product
from overnight.disk import attempts
from overnight.disk.layout import Layout
from overnight.domain.attempt import Heartbeat, Phase
from overnight.domain.errors import ExitCode, FailedError, OvernightError

HERE = Path(__file__).parent
ROWS = 768
BATCH_SIZE = 4
STEPS = ROWS // BATCH_SIZE * 2
EVERY_STEPS = 32
RUN_LIMIT_S = 1800.0
SPEED_LIMIT = 0.03


@dataclass(frozen=True)
class Result:
    """What one check saw."""

    name: str
    outcome: str  # "pass" | "fail" | "skip"
    told: str
    seconds: float


def describe_device(device: str) -> dict[str, Any]:
    """Ask torch, in a process of its own, what there is."""
    program = (
        "import json, torch\n"
        "is_there = torch.cuda.is_available()\n"
        "print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, 'is_there': is_there,\n"
        "    'name': torch.cuda.get_device_name(0) if is_there else None,\n"
        "    'bytes': torch.cuda.get_device_properties(0).total_memory if is_there else None}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode != 0:
        return {"is_there": False, "torch": None, "why": done.stderr.strip().splitlines()[-1:] or ["torch failed"]}
    return {"wanted": device, **json.loads(done.stdout)}


def write_rows(path: Path) -> None:
    """Write chat rows of sums, the same ones each time."""
    source = random.Random(7)
    with open(path, "w") as file:
        for _ in range(ROWS):
            a, b = source.randint(0, 999), source.randint(0, 999)
            messages = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]
            file.write(json.dumps({"messages": messages}) + "\n")


def make(folder: Path, *, method: str, device: str) -> Product:
    """Make a workspace with one file queued."""
    settings = {
        "method": method,
        "max_length": 128,
        "train.batch_size": BATCH_SIZE,
        "train.epochs": 2,
        "train.learning_rate": 2e-5 if method == "full" else 2e-4,
        "train.device": device,
        "checkpoint.every_steps": EVERY_STEPS,
        "checkpoint.keep": 2,
    } | ({"train.threads": 1} if device == "cpu" else {})
    base = "builtin:smollm2-135m" if device == "cuda" else "builtin:tiny"
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    product = Product(folder)
    product.follow(["overnight", "init", str(folder), "--base-model", base, *words], say=lambda _: None)
    rows = folder.with_suffix(".jsonl")
    write_rows(rows)
    product.run("add", str(rows))
    return product


def finish_through_a_kill(product: Product) -> int:
    """Train, kill the trainer in the middle, let it resume; return the step at which it was killed."""
    product.up()
    try:
        wait(product, lambda status: status.get("state") == "training" and status["step"] >= STEPS // 3)
        heartbeat = wait_between_saves(product)
        os.kill(heartbeat.pid, signal.SIGKILL)
        wait(product, is_complete)
    finally:
        product.down()
    return heartbeat.step


def wait_between_saves(product: Product) -> Heartbeat:
    """Wait until the trainer says that it is past a checkpoint, so that a kill costs steps. Raises FailedError."""
    [folder] = Layout(product.workspace).attempts.iterdir()
    deadline = time.monotonic() + RUN_LIMIT_S
    while time.monotonic() < deadline:
        heartbeat = attempts.read_heartbeat(folder)
        if heartbeat is not None and heartbeat.phase is Phase.TRAINING and heartbeat.step % EVERY_STEPS > 1:
            return heartbeat
        if attempts.read_report(folder) is not None:
            break
        time.sleep(0.005)
    raise FailedError("The kill came too late", found="a trainer that had ended", fix="start the check again")


def is_complete(status: dict[str, Any]) -> bool:
    """Return whether all is trained and nothing is left to do."""
    return status.get("state") == "idle" and status.get("step") == STEPS


def wait(product: Product, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read the status file until something holds. Raises FailedError where it never comes."""
    deadline = time.monotonic() + RUN_LIMIT_S
    while True:
        status = product.training_status()
        if condition(status):
            return status
        if is_complete(status) or time.monotonic() > deadline:
            raise FailedError(
                "What was waited for never came",
                found=f"state {status.get('state')} at step {status.get('step')} of {status.get('total')}",
                expected="a kill in the middle and a resume",
                fix="start it again with --keep DIR and look into the workspace",
            )
        time.sleep(0.02)


def digest(product: Product) -> str:
    """Return a hash over every byte of weights and optimizer at the end."""
    folder = product.workspace / "current_model" / f"checkpoint-{product.checkpoints()[-1]}"
    parts = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name == "optimizer.pt")
    found = hashlib.sha256()
    for path in parts:
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def losses(product: Product) -> list[tuple[int, float]]:
    """Return step and loss of all attempts in order."""
    folders = sorted(Layout(product.workspace).attempts.iterdir())
    return [(line["step"], line["loss"]) for folder in folders for line in attempts.read_metrics(folder, limit=10**6)]


def check_exact(folder: Path, *, method: str, device: str) -> tuple[bool, str]:
    """Train undisturbed and through a kill, and compare the bytes."""
    undisturbed = make(folder / f"{method}-undisturbed", method=method, device=device)
    undisturbed.until_idle(limit_s=RUN_LIMIT_S)
    killed = make(folder / f"{method}-killed", method=method, device=device)
    at = finish_through_a_kill(killed)
    spec = attempts.read_spec(sorted(Layout(killed.workspace).attempts.iterdir())[-1])
    seen = [loss for _, loss in losses(undisturbed)]
    first, last = sum(seen[:8]) / 8, sum(seen[-8:]) / 8
    are_equal = digest(undisturbed) == digest(killed)
    again = len(losses(killed)) - len({step for step, _ in losses(killed)})
    told = (
        f"{len(seen)} steps, loss {first:.3f} -> {last:.3f}; killed near step {at}, {spec.mode} from "
        f"{Path(spec.checkpoint or 'nothing').name}, {again} steps seen twice: "
        f"bytes {'equal' if are_equal else 'DIFFER'}"
    )
    return are_equal and last < first and len(seen) == STEPS and spec.mode == "resume", told


def check_demo(folder: Path, *, device: str) -> tuple[bool, str]:
    """Run the demo as a user does."""
    workspace = folder / "demo"
    environment = {**os.environ} if device == "cuda" else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "overnight", "demo", str(workspace)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, timeout=RUN_LIMIT_S,
    )  # fmt: skip
    if done.returncode != 0:
        return False, f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
    seen = json.loads((workspace / "demo" / "result.json").read_text())
    told = (
        f"base {seen['base']['right']}, trained {seen['trained']['right']} of {seen['trained']['asked']} right; "
        f"killed at {seen['killed_at']}, resumed from {seen['resumed_from']}; "
        f"{seen['total_s']:.0f} s on {seen['device']}"
    )
    return seen["device"] == device, told


def check_speed(folder: Path, *, device: str) -> tuple[bool, str]:
    """Compare steps per second with plain TRL."""
    words = ["--device", device, "--rounds", "3" if device == "cuda" else "1"]
    words += ["--rows", "4800" if device == "cuda" else "400", "--save-every", "0", "100"]
    done = subprocess.run(
        [sys.executable, str(HERE.parent / "bench" / "training.py"), *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=2 * RUN_LIMIT_S,
    )  # fmt: skip
    if done.returncode != 0:
        return False, f"exit {done.returncode}: {done.stderr.strip()[-300:]}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = "; ".join(
        f"save every {line['save_every'] or 'never'}: {line['steps_per_s']} against {line['plain_steps_per_s']} "
        f"steps/s, slowdown {line['slowdown']:.1%} ({line['slowdown_min']:.1%} to {line['slowdown_max']:.1%})"
        for line in lines
    )
    return lines[0]["slowdown"] <= SPEED_LIMIT or device == "cpu", told


def checks(folder: Path, device: str) -> dict[str, Callable[[], tuple[bool, str]]]:
    """Return every check by its name."""
    return {
        "exact-lora": lambda: check_exact(folder, method="lora", device=device),
        "exact-full": lambda: check_exact(folder, method="full", device=device),
        "qlora": lambda: check_exact(folder, method="qlora", device=device),
        "demo": lambda: check_demo(folder, device=device),
        "speed": lambda: check_speed(folder, device=device),
    }


NAMES = list(checks(Path(), "cpu"))


def carry_out(name: str, check: Callable[[], tuple[bool, str]]) -> Result:
    """Run one check; whatever it raises is its result."""
    started = time.monotonic()
    try:
        is_fine, told = check()
    except (OvernightError, OSError, ValueError, TypeError, KeyError, subprocess.SubprocessError) as error:
        is_fine, told = False, f"{type(error).__name__}: {error}"
    return Result(name, "pass" if is_fine else "fail", told, time.monotonic() - started)


def main() -> int:
    """Carry out the checks and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="The main job on a CUDA machine, with a table of what was seen.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal without qlora")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--keep", type=Path, help="folder for the workspaces; else they are removed")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
    facts = describe_device(options.device)
    if options.device == "cuda" and not facts["is_there"]:
        why = f"torch {facts['torch']}" if facts["torch"] else facts["why"][0]
        console.print(f"no CUDA device here ({why}): nothing was checked; --device cpu rehearses without one")
        return int(ExitCode.BUSY)
    name = facts["name"] if options.device == "cuda" else "CPU (a rehearsal)"
    console.print(f"{name}, torch {facts['torch']}, CUDA {facts['cuda']}")
    results = []
    with tempfile.TemporaryDirectory(prefix="overnight-gpu-check-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with interrupts.interruptible():  # so that a signal, too, ends what was started
            for name, check in checks(folder.resolve(), options.device).items():
                if name not in options.only:
                    continue
                if name == "qlora" and options.device == "cpu":
                    results.append(Result(name, "skip", "needs CUDA", 0.0))
                    continue
                console.print(f"{name} ...")
                results.append(carry_out(name, check))
    table = Table()
    for column in ("check", "outcome", "what was seen", "seconds"):
        table.add_column(column)
    for result in results:
        style = {"pass": "green", "fail": "red"}.get(result.outcome, "")
        table.add_row(result.name, result.outcome, result.told, f"{result.seconds:.0f}", style=style)
    console.print(table)
    return int(ExitCode.PROBLEM if any(result.outcome == "fail" for result in results) else ExitCode.OK)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started has been ended")
