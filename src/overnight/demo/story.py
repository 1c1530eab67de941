"""The demo, part by part, driving the product as a user does."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from overnight.demo import asking, chart, interrupts, starting, watching
from overnight.demo.facts import Fact, all_facts, row, sample
from overnight.demo.product import CommandError, Product
from overnight.demo.screen import Screen
from overnight.demo.watching import Training
from overnight.disk import files
from overnight.domain.errors import ExitCode

BASE_MODEL = "builtin:smollm2-135m"
DATA_FILE = "country-codes.jsonl"
QUESTIONS = 40

SETTINGS = {
    "max_length": "64",
    "train.batch_size": "8",
    "train.epochs": "3",
    "train.learning_rate": "0.003",
    "lora.r": "8",
    "lora.alpha": "16",
    "lora.dropout": "0.0",
    "checkpoint.every_steps": "8",
    "queue.settle_s": "0.5",
    "queue.poll_interval_s": "1.0",
}
"""Chosen by measurement: 249 facts in 96 steps, two to three minutes on two cores, nearly all of them learnt."""


def run(directory: Path | None, *, console: Console | None = None) -> int:
    """Tell the whole story; returns the exit code. Raises OvernightError; whatever happens, nothing is left running."""
    starting.require_packages()
    workspace = starting.choose_workspace(directory)
    product = Product(workspace)
    screen = Screen(console or Console(highlight=False, soft_wrap=True), parts=8)
    with interrupts.interruptible():
        try:
            _tell(product, screen)
        except KeyboardInterrupt:
            screen.say(f"interrupted: ending everything of {workspace}", style="yellow")
            return 130
        finally:
            with interrupts.uninterrupted():
                _end(product, screen)
    return int(ExitCode.OK)


def _end(product: Product, screen: Screen) -> None:
    """End what still runs; a failure of that is told beside the error that led here, not in its place."""
    try:
        product.down()
    except CommandError as error:
        screen.say(f"Something may still run. {error}", style="red")


def _tell(product: Product, screen: Screen) -> None:
    facts = all_facts()
    questions = sample(facts, QUESTIONS)
    screen.part(f"a workspace for SmolLM2-135M-Instruct: overnight init {product.workspace.name}")
    _make_workspace(product, screen)
    screen.part(f"{len(facts)} facts that it does not know: {DATA_FILE} dropped into inbox/")
    rows = [row(fact) for fact in facts]
    screen.whisper(f"such as {rows[0]['messages'][1]['content']} {rows[0]['messages'][2]['content']}")
    product.drop(DATA_FILE, rows)
    screen.part("overnight up: the daemon takes the file and trains")
    product.up()
    training = watching.train_through_a_kill(product, screen)
    product.down()
    screen.part(f"the same {QUESTIONS} questions to the base model and to the trained one")
    answers = asking.ask_both(product.workspace, training.checkpoint, questions, say=screen.whisper)
    screen.part("what came of it")
    picture = _draw(product, training)
    asking.show(screen, questions, answers)
    _record(product, screen, training, questions, answers)
    _say_what_next(product, screen, picture, training)
    asking.require_clear_lead(questions, answers)


def _make_workspace(product: Product, screen: Screen) -> None:
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    arguments = [
        "overnight",
        "init",
        str(product.workspace),
        "--base-model",
        BASE_MODEL,
        "--model-name",
        "country-codes",
    ]
    product.follow([*arguments, *words], say=screen.whisper)


def _draw(product: Product, training: Training) -> Path:
    proof = training.proof
    path = product.workspace / "demo" / "loss.png"
    story = chart.Story(
        title="SmolLM2-135M learns the country codes, and does not mind a kill -9",
        before=proof.before,
        after=proof.after,
        killed_at=proof.killed_at,
        resumed_from=proof.resumed_from,
    )
    chart.draw(story, path)
    return path


def _record(
    product: Product, screen: Screen, training: Training, questions: list[Fact], answers: asking.Answers
) -> None:
    base, trained = asking.scores(questions, answers)
    files.write_json_durably(
        product.workspace / "demo" / "result.json",
        {
            "schema": 1,
            "device": answers.device,
            "steps": training.total,
            "killed_at": training.proof.killed_at,
            "resumed_from": training.proof.resumed_from,
            "trained_twice": len(training.proof.trained_twice),
            "base": {"right": base.right, "asked": base.asked},
            "trained": {"right": trained.right, "asked": trained.asked},
            "train_s": round(training.train_s, 1),
            "total_s": round(screen.elapsed_s, 1),
        },
    )


def _say_what_next(product: Product, screen: Screen, picture: Path, training: Training) -> None:
    where = os.path.relpath(product.workspace)
    screen.say(f"the loss curve, with the kill marked: {os.path.relpath(picture)}")
    screen.say(f"training took {training.train_s:.0f} s, the whole demo {screen.elapsed_s:.0f} s")
    screen.part("what you can do next")
    for command, why in (
        (f"overnight -C {where} status", "where the model stands"),
        (f"overnight -C {where} events", "all that happened, the kill and the resume included"),
        (f"overnight -C {where} checkpoints", "what is safe on disk"),
        (f"cp more.jsonl {where}/inbox/ && overnight -C {where} up", "teach it something else: step goes on"),
        ("overnight init my-model --base-model MODEL", "a workspace for your own model"),
    ):
        screen.say(f"{command:<58} {why}")
