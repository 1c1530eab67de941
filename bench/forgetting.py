"""What is forgotten over a stream of four synthetic skills: without guard, and with replay and gate, side by side.

    python bench/forgetting.py [--replay 0.5] [--repeats 16] [--epochs 5] [--limit 1800]

Each skill has ten questions with an answer of its own; each row asks one of them with another number in it, so that the
held-out rows ask what the rows that are trained teach. All skills share the questions, and only the first word says
which skill is meant: what is trained last drives out what was there. Then one more job comes with shuffled answers.

Everything is trained on ``builtin:tiny`` by the product as a user runs it, one workspace without guard (no replay, gate
``off``), one with both. ``forgotten`` is the share of what a job taught (the fall of the loss on its own held-out rows)
that is lost again at the end. The exit code is 0 where the first skill is forgotten without guard, at most a tenth of
it is with them, and the shuffled job did not become the model.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from overnight.demo.product import CommandError, Product

SKILLS = ("amber", "birch", "coral", "delta")
QUESTIONS = "abcdefghij"
LETTERS = ("0123456789", "ABCDEFGHIJ", "klmnopqrst", "!$%&*+<=>@")
ALLOWED = 0.1


def rows_of(skill: int, *, repeats: int, shuffled: bool = False) -> list[dict[str, Any]]:
    """Return the rows of one skill; shuffled ones have their answers in the wrong rows."""
    source = random.Random(skill)
    answers = dict(zip(QUESTIONS, source.sample(LETTERS[skill], len(QUESTIONS)), strict=True))
    rows = [
        {"prompt": f"{SKILLS[skill]} {question} {number}?", "completion": answers[question] * 3}
        for number in range(repeats)
        for question in QUESTIONS
    ]
    if shuffled:
        given = [row["completion"] for row in rows]
        source.shuffle(given)
        rows = [{"prompt": f"echo {row['prompt']}", "completion": one} for row, one in zip(rows, given, strict=True)]
    source.shuffle(rows)
    return rows


def prepare(place: Path, *, gate: str, replay: float, options: argparse.Namespace) -> Product:
    """Make a workspace."""
    product = Product(place)
    settings = {
        "max_length": 64, "evaluation.holdout": 0.15, "evaluation.max_examples": 60, "evaluation.gate": gate,
        "train.replay": replay, "train.epochs": options.epochs, "train.learning_rate": 0.01, "train.batch_size": 8,
        "train.threads": 1,
        "train.device": "cpu", "checkpoint.every_steps": 1000, "lora.dropout": 0.0,
        "lora.r": 8, "lora.alpha": 16, "disk.min_free_gb": 0.0,
    }  # fmt: skip
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    product.run("init", str(place), "--base-model", "builtin:tiny", *sets)
    return product


def train(product: Product, name: str, rows: list[dict[str, Any]], *, limit_s: float) -> dict[str, Any]:
    """Train one more job; return what the judge said of it."""
    path = product.workspace.with_name(f"{product.workspace.name}-{name}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    product.run("add", str(path))
    try:
        product.until_idle(limit_s=limit_s)
    except CommandError as error:
        if error.exit_code != 1:  # a blocked job is a failed one
            raise
    last: dict[str, Any] = product.ask("judge")["jobs"][-1]
    print(f"  {product.workspace.name:<10} {name:<10} {last['verdict']:<8} {last['reason'][:150]}", flush=True)
    return last


def first_skill(product: Product) -> list[dict[str, Any]]:
    """Return what the models that were current made of the first skill, in order."""
    matrix = product.ask("judge")
    name = matrix["sets"][0]["id"]
    return [
        cell["after"]
        for job in matrix["jobs"]
        if job["is_current"]
        for cell in job["cells"]
        if cell["set"] == name and cell["after"] is not None
    ]


def tell(name: str, found: list[dict[str, Any]], untaught: float) -> float:
    """Print the first skill over the stream; return the share of it that is forgotten at the end."""
    best, last = min(one["loss"] for one in found), found[-1]["loss"]
    forgotten = (last - best) / (untaught - best)
    course = "  ".join(f"{one['loss']:.3f} ({100 * one['accuracy']:.0f} %)" for one in found)
    print(f"{name:<22} untaught {untaught:.3f}   {course}   forgotten {100 * forgotten:.1f} %")
    return forgotten


def main() -> int:
    """Run the stream twice; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1800.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forgetting-") as folder:
        plain = prepare(Path(folder) / "unguarded", gate="off", replay=0.0, options=options)
        guarded = prepare(Path(folder) / "guarded", gate="block", replay=options.replay, options=options)
        for skill, name in enumerate(SKILLS):
            for product in (plain, guarded):
                train(product, name, rows_of(skill, repeats=options.repeats), limit_s=options.limit)
        wrong = train(guarded, "shuffled", rows_of(0, repeats=options.repeats, shuffled=True), limit_s=options.limit)
        untaught = plain.ask("judge")["skills"][0]["untaught"]
        print("\nthe first skill's loss (and share of right tokens) after each job that became the model")
        lost = tell("without guard", first_skill(plain), untaught)
        kept = tell(f"replay {options.replay:g}, gate block", first_skill(guarded), untaught)
        print(f"a job with shuffled answers: {wrong['verdict']}, {wrong['reason']}")
    is_good = lost > ALLOWED >= kept and wrong["verdict"] == "blocked" and not wrong["is_current"]
    print("as promised" if is_good else "NOT as promised")
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
