"""Where the next job starts from is asked before each launch: it costs as much after years as on the first day."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from overnight import starting
from overnight.database import events
from overnight.database.connection import connect
from overnight.disk.layout import Layout


def test_what_was_once_committed_is_found_without_reading_the_whole_history(tmp_path: Path) -> None:
    instructions: list[int] = []
    with closing(connect(tmp_path / "state.db", create=True)) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO events (at, kind, level, message) VALUES (1.0, ?, 'info', 'x')", [("job.finish",)] * 20_000
        )
        connection.execute("COMMIT")
        events.record(connection, now=2.0, kind="version.published", message="v001", checkpoint=None)
        events.record(connection, now=3.0, kind="checkpoint.committed", message="at step 7", step=7)
        connection.set_progress_handler(lambda: instructions.append(1), 1000)
        assert starting.ever_committed(Layout(tmp_path), connection) == 7
        assert len(instructions) < 10, "thousands of instructions of SQLite"
        events.record(connection, now=4.0, kind="version.rolled_back", message="base", checkpoint=5)
        assert starting.ever_committed(Layout(tmp_path), connection) == 5
