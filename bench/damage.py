"""What becomes of a run whose newest checkpoint is damaged: Overnight beside plain TRL, each file, each damage.

    python bench/damage.py [--quick] [--trials N] [--only plain|ours]

Both sides train the same rows on the same base and are stopped at step 24, with checkpoints at 6, 12, 18 and 24. For
each trial one file of checkpoint-24 is cut, emptied, removed, zero-filled, has one bit flipped, or is swapped with that
of checkpoint-18; then the run is resumed as its users resume it (plain: ``resume_from_checkpoint=True``) to step 30.

One line a trial, then one a side: how many resumed from the older good checkpoint and ended with the same bytes as the
undisturbed run, how many could not be resumed, and how many trained on to other bytes without a word. Overnight is
driven through its command line and takes a sample (--trials); plain TRL does all of them in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))  # the damages are those of the tests

import work  # noqa: E402

from damage_rig import DAMAGES  # noqa: E402
from overnight.demo.product import CommandError, Product  # noqa: E402

EVERY, STOP, LAST = 6, 24, 30
ENVIRONMENT = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
SAME, UNABLE, SILENT, TOLD = "same bytes", "cannot be resumed", "other bytes, silently", "other bytes, told"


def digest(checkpoint: Path) -> str:
    """Return the hash of the weights at the end."""
    return hashlib.sha256((checkpoint / "adapter_model.safetensors").read_bytes()).hexdigest()


def cases(checkpoint: Path) -> list[tuple[str, str]]:
    """Return every file with every damage; a file that is the same at both steps is not swapped."""
    older = checkpoint.with_name(f"checkpoint-{STOP - EVERY}")
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    names = [name for name in names if name != "README.md"]  # the plain side's empty form: nobody reads it
    return [
        (name, how)
        for name in names
        for how in DAMAGES
        if how != "swapped" or (checkpoint / name).read_bytes() != (older / name).read_bytes()
    ]


def damage(model: Path, name: str, how: str) -> None:
    DAMAGES[how](model / f"checkpoint-{STOP}" / name, model / f"checkpoint-{STOP - EVERY}" / name)


def plain_side(place: Path, folder: Path, limit: int | None) -> None:
    """Do every trial in this process, and print one line for each."""
    from plain_trl import build_trainer
    from transformers import TrainerCallback

    class Begin(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.step: int | None = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.step = state.global_step if self.step is None else self.step

    def train(out: Path, *, resume: bool) -> int | None:
        begin = Begin()
        trainer = build_trainer(
            place, out, save_every=EVERY, device="cpu", threads=1, save_limit=None, callbacks=[begin]
        )
        trainer.train(resume_from_checkpoint=resume or None)
        return begin.step

    whole = folder / "plain"
    train(whole, resume=False)
    expected = digest(whole / f"checkpoint-{LAST}")
    shutil.rmtree(whole / f"checkpoint-{LAST}")
    for name, how in cases(whole / f"checkpoint-{STOP}")[:limit]:
        out = folder / "trial"
        shutil.copytree(whole, out)
        damage(out, name, how)
        started: int | None = None
        try:
            started = train(out, resume=True)
            outcome = SAME if digest(out / f"checkpoint-{LAST}") == expected else SILENT
        except Exception:  # whatever it is, the user has a traceback and no run
            outcome = UNABLE
        shutil.rmtree(out)
        print(
            json.dumps({"side": "plain TRL", "file": name, "damage": how, "from": started, "outcome": outcome}),
            flush=True,
        )


def our_side(place: Path, folder: Path, limit: int | None) -> None:
    """Train through the command line, pause, and resume copies of the workspace after damage."""
    whole = folder / "ours"
    settings = {
        "max_length": work.MAX_LENGTH, "train.batch_size": work.BATCH_SIZE, "train.learning_rate": work.LEARNING_RATE,
        "train.threads": 1, "train.device": "cpu", "lora.r": work.LORA_R, "lora.alpha": work.LORA_ALPHA,
        "lora.dropout": work.LORA_DROPOUT, "checkpoint.every_steps": EVERY, "checkpoint.keep": 9, "disk.min_free_gb": 0,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    product = Product(whole)
    product.follow(["overnight", "init", str(whole), "--base-model", str(place / "base"), *words], say=lambda _: None)
    product.run("add", str(place / "rows.jsonl"))
    undisturbed = folder / "undisturbed"
    shutil.copytree(whole, undisturbed)
    Product(undisturbed).until_idle(limit_s=600)
    expected = digest(undisturbed / "current_model" / f"checkpoint-{LAST}")
    product.up()
    deadline = time.monotonic() + 300
    while STOP not in product.checkpoints():
        if time.monotonic() > deadline:
            raise SystemExit("step 24 never came")
        time.sleep(0.01)
    product.run("down", "--now")
    model = whole / "current_model"
    for path in model.glob("checkpoint-*"):  # it may have come further before it ended
        if int(path.name.partition("-")[2]) > STOP:
            shutil.rmtree(path)
    every = cases(model / f"checkpoint-{STOP}")
    sample = every if limit is None else every[:: max(1, len(every) // limit)][:limit]
    for name, how in sample:
        out = folder / "trial"
        shutil.copytree(whole, out)
        damage(out / "current_model", name, how)
        trial = Product(out)
        command = [sys.executable, "-m", "overnight", "-C", str(out), "verify", "--json"]  # 1: it has found the damage
        told = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)["resume_from"]
        try:
            trial.until_idle(limit_s=600)
            is_same = digest(out / "current_model" / f"checkpoint-{LAST}") == expected
            outcome = SAME if is_same else TOLD
        except CommandError:
            outcome = UNABLE
        step = told["step"] if told else None
        shutil.rmtree(out)
        print(
            json.dumps({"side": "overnight", "file": name, "damage": how, "from": step, "outcome": outcome}), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a few trials a side")
    parser.add_argument("--trials", type=int, default=12, help="of Overnight; each starts real processes; 0 for all")
    parser.add_argument("--only", choices=["plain", "ours"], help="one side")
    parser.add_argument("--side", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        limit = options.trials or None
        side = plain_side if options.side == "plain" else our_side
        side(options.place, options.place, limit)
        return
    with tempfile.TemporaryDirectory(prefix="overnight-bench-damage-") as name:
        place = Path(name)
        work.make_base(place / "base")
        work.make_rows(place / "rows.jsonl", LAST * work.BATCH_SIZE)
        for side, trials in {
            "plain": 6 if options.quick else 0,
            "ours": 3 if options.quick else options.trials,
        }.items():
            if options.only in (None, side):
                print(json.dumps(summary(side, trials, place)), flush=True)


def summary(side: str, trials: int, place: Path) -> dict[str, Any]:
    """Run one side in a process of its own, pass its lines on, and count."""
    command = [sys.executable, __file__, "--side", side, "--place", str(place), "--trials", str(trials)]
    child = subprocess.Popen(command, cwd=HERE, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    outcomes: Counter[str] = Counter()
    older = 0
    for line in child.stdout:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "outcome" in value:
            print(line, end="", flush=True)
            outcomes[value["outcome"]] += 1
            older += value["from"] == STOP - EVERY
    if child.wait() != 0:
        raise SystemExit(f"the side '{side}' could not run")
    return {
        "case": f"newest checkpoint damaged, {side}", "trials": outcomes.total(), "fell_back_to_the_older": older,
        **{name.replace(",", "").replace(" ", "_"): outcomes[name] for name in (SAME, UNABLE, SILENT, TOLD)},
    }  # fmt: skip


if __name__ == "__main__":
    main()
