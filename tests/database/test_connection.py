"""Opening the database: migrated once, refused where it is damaged or newer, a change all or nothing."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from overnight.database import events, intents
from overnight.database.connection import VERSION, connect, connect_readonly, transaction
from overnight.domain.errors import OvernightError


def test_a_new_database_is_durable_and_of_this_format(tmp_path: Path) -> None:
    connection = connect(tmp_path / "state.db", create=True)
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
    connection.close()


def test_a_missing_database_is_never_made_by_opening(tmp_path: Path) -> None:
    for opener in (connect, connect_readonly):
        with pytest.raises(OvernightError, match="has no database"):
            opener(tmp_path / "state.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_database_is_told_and_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(data)
    for opener in (connect, connect_readonly):
        with pytest.raises(OvernightError):
            opener(path)
    assert path.read_bytes() == data


def test_an_emptied_database_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"")
    for way in (connect, connect_readonly):
        with pytest.raises(OvernightError, match="damaged") as told:
            way(path)
        assert told.value.code == "database"
    assert path.read_bytes() == b""


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = connect(path, create=True)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()
    for opener in (connect, connect_readonly):
        with pytest.raises(OvernightError, match="newer Overnight"):
            opener(path)


def test_reading_only_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connect(path, create=True).close()
    connection = connect_readonly(path)
    with pytest.raises(sqlite3.OperationalError):
        events.record(connection, now=1.0, kind="x", message="m")
    connection.close()


def test_a_failing_change_leaves_nothing(tmp_path: Path) -> None:
    connection = connect(tmp_path / "state.db", create=True)

    def fail_half_way() -> None:
        with transaction(connection):
            intents.wish(connection, "paused", {"reason": "x"}, now=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert intents.standing(connection) == {}
    connection.close()


def test_ten_processes_may_make_it_at_once(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def make(path: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            connect(path, create=True).close()
        except Exception as error:  # told below
            failures.append(error)

    for number in range(40):  # they meet within the same few microseconds once in a while
        words = (tmp_path / f"state{number}.db", threading.Barrier(10))
        threads = [threading.Thread(target=make, args=words) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_first_time_of_a_wish_stays_while_the_word_is_the_same(tmp_path: Path) -> None:
    connection = connect(tmp_path / "state.db", create=True)
    intents.wish(connection, "paused", {"reason": "x"}, now=1.0)
    intents.wish(connection, "paused", {"reason": "x"}, now=2.0)
    assert intents.standing(connection)["paused"].at == 1.0
    intents.wish(connection, "paused", {"reason": "y"}, now=3.0)
    assert intents.standing(connection)["paused"].at == 3.0
    assert intents.withdraw(connection, "paused")
    assert not intents.withdraw(connection, "paused")
    connection.close()


def test_events_are_told_in_order_and_from_anywhere(tmp_path: Path) -> None:
    connection = connect(tmp_path / "state.db", create=True)
    for number in range(5):
        events.record(connection, now=float(number), kind="k", message=f"m{number}", job=number)
    assert [event["message"] for event in events.since(connection, 3)] == ["m3", "m4"]
    assert [event["data"] for event in events.newest(connection, limit=2)] == [{"job": 3}, {"job": 4}]
    connection.close()
