"""What the demo says: one line a step, live progress on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_EVERY_S = 15.0


class Screen:
    """Prints the story with the time since its beginning."""

    def __init__(self, console: Console, *, parts: int) -> None:
        self.console = console
        self._parts = parts
        self._part = 0
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def part(self, text: str) -> None:
        """Begin the next part of the story."""
        self._part += 1
        clock = f"{int(self.elapsed_s) // 60}:{int(self.elapsed_s) % 60:02d}"
        self.console.print(Text(f"[{clock}] {self._part}/{self._parts}  {text}", style="bold"))

    def say(self, text: str, *, style: str = "") -> None:
        """Print one line that belongs to the part."""
        self.console.print(Text(f"        {text}", style=style))

    def whisper(self, text: str) -> None:
        """Print one line of detail, such as another command's progress."""
        self.say(text, style="dim")

    @contextmanager
    def progress(self) -> Iterator[Bar]:
        """Show how the training goes, live on a terminal."""
        if not self.console.is_terminal:
            yield Bar(self, None)
            return
        columns = (
            TextColumn("       "),
            SpinnerColumn(),
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=30),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Bar(self, progress)


class Bar:
    """The training's progress, from the status file's words."""

    def __init__(self, screen: Screen, progress: Progress | None) -> None:
        self._screen = screen
        self._progress = progress
        self._task = progress.add_task("", total=None) if progress is not None else None
        self._told_at = 0.0
        self._told_attempt: Any = None

    def show(self, status: dict[str, Any]) -> None:
        """Show a reading of the status file."""
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, completed=status.get("step") or 0, total=status.get("total"), description=figures(status)
            )
            return
        is_another_attempt = status.get("attempt") != self._told_attempt
        if not is_another_attempt and time.monotonic() - self._told_at < PLAIN_EVERY_S:
            return
        if status.get("attempt") is not None:
            self._told_at, self._told_attempt = time.monotonic(), status.get("attempt")
            self._screen.whisper(f"step {status.get('step') or 0}/{status.get('total') or '?'}  {figures(status)}")


def figures(status: dict[str, Any]) -> str:
    """Return state, loss, speed and remaining time in one line."""
    words = [str(status.get("state") or "starting")]
    if status.get("loss") is not None:
        words.append(f"loss {status['loss']:.3f}")
    if status.get("tokens_per_second"):
        words.append(f"{status['tokens_per_second']:.0f} tokens/s")
    if status.get("eta_s") is not None:
        words.append(f"{status['eta_s']:.0f} s left")
    return " · ".join(words)
