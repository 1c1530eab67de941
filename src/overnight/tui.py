"""The live view: what goes on, as it goes on; plain lines where stdout is no terminal."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from overnight import status as picture
from overnight.database import events
from overnight.disk import attempts
from overnight.disk.layout import Layout
from overnight.domain.picture import State, iso
from overnight.domain.printable import shown
from overnight.status import Snapshot, words

if TYPE_CHECKING:
    from rich.console import RenderableType

POLL_S = 0.25
LINE_S = 1.0
EVENTS = 6
LOSSES = 400
SPARK_WIDTH = 48
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*#@"
COLORS = {
    State.DEAD: "bold red",
    State.PAUSED: "yellow",
    State.STOPPED: "yellow",
    State.STOPPING: "yellow",
    State.WAITING: "yellow",
    State.IDLE: "dim",
}


class View(Protocol):
    """Something that shows one picture after another."""

    def __enter__(self) -> View:
        """Begin to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        ...

    def show(self, shot: Snapshot, *, note: str) -> None:
        """Show the picture of now; ``note`` is a word to the person in front of it."""
        ...


def view_for(layout: Layout, connection: sqlite3.Connection) -> View:
    """Return the live view in a terminal, plain lines elsewhere."""
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return LiveView(layout, connection) if is_terminal else PlainView()


def watch(layout: Layout, connection: sqlite3.Connection, *, as_json: bool) -> None:
    """Show the picture until the user has seen enough (Ctrl-C)."""
    view = JsonView() if as_json else view_for(layout, connection)
    try:
        with view:
            while True:
                view.show(picture.snapshot(layout, connection, now=time.time()), note="Ctrl-C ends this view only")
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        return


class PlainView:
    """One line a change, at most one a second."""

    def __init__(self, *, write: Callable[[str], None] | None = None) -> None:
        self._write = write or (lambda line: print(line, flush=True))
        self._last, self._at = "", float("-inf")

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, shot: Snapshot, *, note: str) -> None:
        """Print a line where something changed."""
        line = shown(words.progress_line(shot))
        if line != self._last and (time.monotonic() - self._at >= LINE_S or shot.job is None):
            self._write(f"{iso(shot.at)}  {line}")
            self._last, self._at = line, time.monotonic()


class JsonView:
    """One JSON object a change, at most one a second."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._at = float("-inf")

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, shot: Snapshot, *, note: str) -> None:
        """Print an object where something changed."""
        value = picture.to_json(shot)
        looks = {key: item for key, item in value.items() if key != "updated_at"}
        if looks != self._last and time.monotonic() - self._at >= LINE_S:
            print(json.dumps(value), flush=True)
            self._last, self._at = looks, time.monotonic()


class LiveView:
    """State, job, bar, loss with its course, queue, last events, guards: redrawn as they change."""

    def __init__(self, layout: Layout, connection: sqlite3.Connection) -> None:
        from rich.console import Console
        from rich.live import Live

        self._layout, self._connection = layout, connection
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, shot: Snapshot, *, note: str) -> None:
        """Draw the picture anew."""
        self._live.update(self.render(shot, note=note), refresh=True)

    def render(self, shot: Snapshot, *, note: str) -> RenderableType:
        """Return the whole view of one picture."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        parts = [self._head(shot), self._facts(shot), Text(""), self._events(), Text(shown(note), style="dim")]
        return Panel(Group(*parts), title=Text(f"overnight · {shown(shot.workspace)}"), border_style="dim")

    def _head(self, shot: Snapshot) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text(overflow="ellipsis", no_wrap=True)
        head.append(f"{shot.state.value.upper():<11}", style=COLORS.get(shot.state, "bold green"))
        head.append(shown(words.headline(shot)))
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(justify="right")
        total = max(1, shot.total)
        bar = ProgressBar(total=total, completed=min(shot.step, total)) if words.is_counted(shot) else Text("")
        grid.add_row(bar, f"step {words.step_of_total(shot)}")
        whole = Table.grid(expand=True)
        whole.add_row(head)
        whole.add_row(grid)
        return whole

    def _facts(self, shot: Snapshot) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True, min_width=10)
        table.add_column(overflow="ellipsis", no_wrap=True)
        course = self._course(shot)
        for name, text in words.facts(shot):
            if text and name != "step":
                table.add_row(name, Text(shown(text)))
            if name == "loss" and course:
                table.add_row("", Text(course, style="cyan"))
        return table

    def _course(self, shot: Snapshot) -> str:
        """Return the course of the loss as a line of blocks."""
        if shot.attempt_folder is None:
            return ""
        found = [line.get("loss") for line in attempts.read_metrics(shot.attempt_folder, limit=LOSSES)]
        losses = [float(loss) for loss in found if isinstance(loss, int | float)]
        blocks = BLOCKS if (self._console.encoding or "").lower().startswith("utf") else ASCII_BLOCKS
        return sparkline(losses, width=SPARK_WIDTH, blocks=blocks)

    def _events(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True, min_width=8)
        table.add_column(overflow="ellipsis", no_wrap=True)
        styles = {"warning": "yellow", "error": "red"}
        for event in events.newest(self._connection, limit=EVENTS):
            at = (iso(event["at"]) or "")[11:19]
            table.add_row(at, Text(shown(event["message"]), style=styles.get(event["level"], "")))
        return table


def sparkline(values: list[float], *, width: int, blocks: str = BLOCKS) -> str:
    """Return numbers as a line of blocks, each one the mean of its share; "" below two numbers."""
    if len(values) < 2:
        return ""
    width = min(width, len(values))
    edges = [at * len(values) // width for at in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(blocks[min(len(blocks) - 1, int((mean - low) / span * len(blocks)))] for mean in means)
