"""The live view draws every picture in any width and lets nothing steer the terminal; elsewhere a line a change."""

from __future__ import annotations

import dataclasses
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from overnight import tui
from overnight.database import queue
from overnight.database.connection import connect
from overnight.disk import attempts, workspace
from overnight.disk.layout import Layout
from overnight.domain.attempt import Heartbeat, Phase
from overnight.domain.job import Priority
from overnight.domain.picture import Standing, State
from overnight.status import Snapshot, snapshot

NOW = 1_000_000.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = workspace.new_layout(tmp_path / "workspace")
    workspace.create(layout)
    return layout


@pytest.fixture
def connection(layout: Layout) -> Iterator[sqlite3.Connection]:
    opened = connect(layout.database, create=True)
    yield opened
    opened.close()


@pytest.fixture
def shot(layout: Layout, connection: sqlite3.Connection) -> Snapshot:
    """A job at step 12 of 32, with a course of the loss."""
    for name in ("evil\x1b[2J.jsonl", "next.jsonl"):
        queue.submit(
            connection, claim=name, file=name, sha256="s", dataset="d", priority=Priority.NORMAL, examples=64,
            accounting={}, rejection=None, now=NOW,
        )  # fmt: skip
    attempt = queue.dispatch(connection, 1, settings={}, start_step=0, first_step=0, reason="its turn", now=NOW)
    assert attempt is not None
    queue.set_steps(connection, 1, 32)
    folder = layout.attempt(attempt.id)
    folder.mkdir()
    for step in range(1, 13):
        attempts.append_metrics(folder, {"step": step, "loss": 4.0 / step})
    attempts.write_heartbeat(
        folder,
        Heartbeat(
            attempt=attempt.id, pid=7, phase=Phase.TRAINING, progress=12, step=12, total=32, loss=0.3333,
            eval_loss=0.5, learning_rate=1e-4, epoch=0.5, tokens_per_second=812.0, eta_s=75.0, checkpoint=None,
            phase_since=1.0, beat_at=2.0, written_at=NOW, boot_id="b",
        ),
    )  # fmt: skip
    return snapshot(layout, connection, now=NOW)


def drawn(view: tui.LiveView, shot: Snapshot, *, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, height=40, force_terminal=False)
    console.print(view.render(shot, note="a note"))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [30, 80, 200])
def test_every_width_shows_state_step_and_note_and_nothing_is_wider(
    layout: Layout, connection: sqlite3.Connection, shot: Snapshot, width: int
) -> None:
    text = drawn(tui.LiveView(layout, connection), shot, width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "step 12 of 32" in text
    assert shot.state.value.upper() in text
    assert "a note" in text


def test_the_view_shows_loss_speed_queue_events_and_guards(
    layout: Layout, connection: sqlite3.Connection, shot: Snapshot
) -> None:
    text = drawn(tui.LiveView(layout, connection), shot, width=160)
    for part in (
        "0.3333",
        "eval 0.5000",
        "812 tokens/s",
        "75 s left",
        "1 queued",
        "next.jsonl",
        "its turn",
        "watchdog",
    ):
        assert part in text, part
    assert any(block in text for block in tui.BLOCKS)


def test_no_name_steers_the_terminal(layout: Layout, connection: sqlite3.Connection, shot: Snapshot) -> None:
    text = drawn(tui.LiveView(layout, connection), shot, width=160)
    assert "\x1b" not in text
    assert "evil\\x1b[2J.jsonl" in text


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_drawn(layout: Layout, connection: sqlite3.Connection, shot: Snapshot, state: State) -> None:
    changed = dataclasses.replace(shot, standing=Standing(state=state, reason="because", since=None))
    assert state.value.upper() in drawn(tui.LiveView(layout, connection), changed, width=80)


def test_an_empty_workspace_is_drawn(layout: Layout, connection: sqlite3.Connection) -> None:
    assert "STOPPED" in drawn(tui.LiveView(layout, connection), snapshot(layout, connection, now=NOW), width=80)


def test_plain_lines_come_one_a_change_and_at_most_one_a_second(
    shot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tui.time, "monotonic", lambda: clock[0])
    lines: list[str] = []
    view = tui.PlainView(write=lines.append)
    for second, step in [(0.0, 12), (0.2, 13), (0.9, 14), (1.0, 14), (5.0, 14), (6.0, 15)]:
        clock[0] = second
        view.show(dataclasses.replace(shot, step=step), note="")
    assert [line.partition("step ")[2].partition(" ")[0] for line in lines] == ["12", "14", "15"]
    assert all("\x1b" not in line for line in lines)


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, ""),
        ([1.0], 8, ""),
        ([1.0, 1.0], 8, "▁▁"),
        ([8.0, 1.0], 8, "█▁"),
        ([float(n) for n in range(8)], 8, "▁▂▃▄▅▆▇█"),
        ([float(n) for n in range(800)], 4, "▁▃▆█"),
    ],
)
def test_a_course_is_a_line_of_blocks(values: list[float], width: int, line: str) -> None:
    assert tui.sparkline(values, width=width) == line
