"""Base and trained model before the same questions, their scores side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from overnight.demo import facts, scoring
from overnight.demo.facts import Fact
from overnight.demo.product import Product
from overnight.demo.scoring import Score
from overnight.demo.screen import Screen
from overnight.disk import builtin, files
from overnight.disk.layout import Layout
from overnight.domain.errors import FailedError

SHOWN = 8
TIME_LIMIT_S = "180"
MAX_NEW_TOKENS = "20"
"""Enough for a base model to get to the point in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What both models said, in the order of the questions."""

    base: list[str | None]
    trained: list[str | None]
    device: str


def ask_both(workspace: Path, checkpoint: Path, questions: list[Fact], *, say: Callable[[str], None]) -> Answers:
    """Ask base and trained model, each in a process of its own. Raises FailedError."""
    base = base_folder(workspace)
    folder = workspace / "demo"
    files.make_directory(folder)
    asked = [{"id": fact.code, "messages": facts.question(fact)} for fact in questions]
    files.write_json_durably(folder / "questions.json", {"schema": 1, "questions": asked})
    told: dict[str, dict[str, Any]] = {}
    for name, more in (("base", []), ("trained", ["--checkpoint", str(checkpoint)])):
        out = folder / f"answers-{name}.json"
        Product(workspace).follow(
            [
                *("overnight.trainer.ask", "--base", str(base), *more),
                *("--questions", str(folder / "questions.json"), "--out", str(out)),
                *("--max-new-tokens", MAX_NEW_TOKENS, "--time-limit-s", TIME_LIMIT_S),
            ],
            say=lambda line, name=name: say(f"{name}: {line}"),  # type: ignore[misc]
        )
        told[name] = files.read_json(out)
    said = {name: [item["answer"] for item in value["answers"]] for name, value in told.items()}
    return Answers(base=said["base"], trained=said["trained"], device=told["trained"]["device"])


def base_folder(workspace: Path) -> Path:
    """Return the folder of the workspace's base model."""
    layout = Layout(workspace)
    return Path(builtin.resolve(layout, str(files.read_json(layout.config)["base_model"])))


def scores(questions: list[Fact], answers: Answers) -> tuple[Score, Score]:
    """Return the scores of base and trained model."""
    return scoring.score(questions, answers.base), scoring.score(questions, answers.trained)


def show(screen: Screen, questions: list[Fact], answers: Answers) -> None:
    """Print a few answers and both scores, side by side."""
    table = Table(show_footer=True)
    base, trained = scores(questions, answers)
    room = max(20, min(60, screen.console.width - 58))
    table.add_column("ISO alpha-3 code of", footer=f"right, of all {len(questions)}", no_wrap=True, width=25)
    table.add_column("right", no_wrap=True, width=5)
    table.add_column("base model", footer=str(base), no_wrap=True, width=room)
    table.add_column("trained model", footer=str(trained), no_wrap=True, width=13)
    for fact, before, after in list(zip(questions, answers.base, answers.trained, strict=True))[:SHOWN]:
        table.add_row(fact.country, fact.code, _shown(fact, before), _shown(fact, after))
    screen.console.print(table)


def _shown(fact: Fact, answer: str | None) -> Text:
    words = " ".join((answer or "(no answer)").split())
    return Text(words, style="green" if scoring.is_right(fact, answer) else "red")


def require_clear_lead(questions: list[Fact], answers: Answers) -> None:
    """Raise FailedError where the trained model is not clearly better than its base."""
    base, trained = scores(questions, answers)
    if not scoring.is_clearly_better(trained, base):
        raise FailedError(
            "The trained model does not beat its base clearly",
            found=f"base {base}, trained {trained}",
            expected=f"a lead of at least {scoring.CLEAR_LEAD:.0%} of the questions",
            fix="look at the loss curve and at overnight logs trainer",
        )
