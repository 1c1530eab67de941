"""State of an older version: migrated after a backup, all or nothing, wherever the migration is killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overnight.database import connection as connecting
from overnight.database import events, intents, migrating, queue
from overnight.database.connection import connect, connect_readonly, takes_writes
from overnight.domain.errors import BusyError, DiskError, OvernightError
from overnight.domain.job import JobState, Priority

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = sorted(int(path.stem.rpartition("_")[2]) for path in FIXTURES.glob("state_format_*.sql"))
NEXT = connecting.VERSION + 1
EVERY_ARROW = "OVERNIGHT_EVERY_ARROW" in os.environ
"""Set it for every single system call; it takes about a minute."""

NEXT_SQL = """
-- What a next format may do: a column with a default, a table, an index.
ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';
CREATE TABLE extras (id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs (id), note TEXT NOT NULL);
INSERT INTO extras (job, note) SELECT id, file FROM jobs;
CREATE INDEX extras_by_job ON extras (job);
"""
MIGRATE = """
import sys
from pathlib import Path
from overnight.database import connection, migrating
connection.VERSION, migrating.SCRIPTS = int(sys.argv[2]), Path(sys.argv[3])
connection.connect(Path(sys.argv[1])).close()
"""


def old_state(path: Path, number: int = 1) -> Path:
    """Make the database that an older version left behind."""
    with closing(sqlite3.connect(path)) as made:
        made.executescript((FIXTURES / f"state_format_{number}.sql").read_text())
        made.execute("PRAGMA journal_mode=WAL")
    return path


def scripts_with(tmp_path: Path, sql: str) -> Path:
    """Return a folder of migrations that knows one format more than this program."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(str(migrating.SCRIPTS)), folder)
    (folder / f"{NEXT:03d}.sql").write_text(sql)
    return folder


def contents(path: Path) -> dict[str, Any]:
    """Return all rows of the first format's tables and columns, and the format."""
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA quick_check").fetchone() == ("ok",)
        tables: dict[str, Any] = {
            table: opened.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("jobs", "attempts", "intents", "events")
        }
        tables["format"] = migrating.format_of(opened)
    return tables


def test_there_is_a_recorded_state_of_each_older_format() -> None:
    assert [*range(1, connecting.VERSION)] == [number for number in OLD if number < connecting.VERSION]


@pytest.mark.parametrize("number", OLD)
def test_the_state_of_each_older_version_is_taken_up_with_all_that_it_held(tmp_path: Path, number: int) -> None:
    path = old_state(tmp_path / "state.db", number)
    before = contents(path)

    with closing(connect(path)) as opened:
        jobs = queue.listing(opened)
        assert {job.state for job in jobs} == {JobState.SUCCEEDED, JobState.REJECTED, JobState.QUEUED}
        assert len(queue.attempts_of(opened, 1)) == 1
        assert intents.standing(opened)["paused"].value == {"reason": "for the night"}
        assert [event["message"] for event in events.since(opened, limit=3)][-1] == "the daemon has started"

    after = contents(path)
    assert after["format"] == connecting.VERSION
    assert [row[0] for row in after["jobs"]] == [row[0] for row in before["jobs"]]
    backup = migrating.backup_path(path, number)
    assert backup.exists() == (number < connecting.VERSION)
    assert not backup.exists() or contents(backup) == before


@pytest.fixture
def a_next_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this program know one format more."""
    folder = scripts_with(tmp_path, NEXT_SQL)
    monkeypatch.setattr(connecting, "VERSION", NEXT)
    monkeypatch.setattr(migrating, "SCRIPTS", folder)
    return folder


def present_state(tmp_path: Path) -> Path:
    """Make a workspace's database in this program's own format."""
    path = old_state(tmp_path / "state.db")
    connect(path).close()
    return path


def test_before_a_migration_the_database_is_kept_as_it_was_and_the_migration_is_told(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = present_state(tmp_path)
    before = contents(path)
    request.getfixturevalue("a_next_format")

    with closing(connect(path)) as opened:
        told = events.newest(opened, limit=1)[0]
        assert opened.execute("SELECT count(*), min(note) FROM extras").fetchone()[:] == (4, "bad.jsonl")
        assert opened.execute("PRAGMA foreign_keys").fetchone()[0] == 1

    backup = migrating.backup_path(path, NEXT - 1)
    assert contents(backup) == before
    assert sorted(found.name for found in tmp_path.glob("state.format*")) == sorted(
        {backup.name, migrating.backup_path(path, OLD[0]).name}  # each migration keeps what it began with
    )
    assert told["kind"] == "database.migrated"
    assert backup.name in told["message"]


def test_ten_processes_that_come_at_once_migrate_it_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = present_state(tmp_path)
    request.getfixturevalue("a_next_format")
    failures: list[Exception] = []

    def open_it() -> None:
        try:
            connect(path).close()
        except Exception as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(connect(path)) as opened:
        migrated = [event for event in events.since(opened) if event["data"].get("to") == NEXT]
    assert len(migrated) == 1


@pytest.mark.parametrize(
    "sql",
    [NEXT_SQL + "INSERT INTO nowhere VALUES (1);", NEXT_SQL + "INSERT INTO extras (job, note) VALUES (4711, 'x');"],
    ids=["a step fails", "a row refers to nothing"],
)
def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    path = present_state(tmp_path)
    before = contents(path)
    folder = scripts_with(tmp_path, sql)
    with monkeypatch.context() as patch:
        patch.setattr(connecting, "VERSION", NEXT)
        patch.setattr(migrating, "SCRIPTS", folder)
        with pytest.raises(OvernightError):
            connect(path)
    assert contents(path) == before
    connect(path).close()


def test_a_backup_that_cannot_be_made_stops_the_migration_before_it_begins(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = present_state(tmp_path)
    before = contents(path)
    request.getfixturevalue("a_next_format")
    in_the_way = migrating.backup_path(path, NEXT - 1)
    in_the_way.write_bytes(b"no database at all" * 100)
    with pytest.raises(OvernightError, match="cannot be kept"):
        connect(path)
    assert contents(path) == before
    in_the_way.unlink()
    in_the_way.mkdir()
    with pytest.raises(DiskError):
        connect(path)
    assert contents(path) == before


def test_an_older_loop_goes_on_with_a_migrated_database_and_does_not_turn_its_format_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = present_state(tmp_path)
    with closing(connect(path)) as older:
        assert len(queue.listing(older)) == 4
        folder = scripts_with(tmp_path, NEXT_SQL)
        with monkeypatch.context() as patch:
            patch.setattr(connecting, "VERSION", NEXT)
            patch.setattr(migrating, "SCRIPTS", folder)
            connect(path).close()
        assert takes_writes(older)
        assert migrating.format_of(older) == NEXT
        queue.submit(
            older, claim="c", file="later.jsonl", sha256="s", dataset="s", priority=Priority.NORMAL, examples=1,
            accounting={}, rejection=None, now=1.0,
        )  # fmt: skip
        events.record(older, now=1.0, kind="k", message="m")
        assert [job.file for job in queue.listing(older)].count("later.jsonl") == 1


def test_a_migration_waits_for_nobody_for_long_and_says_that_the_database_is_in_use(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = present_state(tmp_path)
    before = contents(path)
    request.getfixturevalue("a_next_format")
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError):
            connect(path)
        other.execute("ROLLBACK")
    assert contents(path) == before


def test_looking_at_an_older_state_on_a_disk_that_takes_no_writes_shows_it_and_changes_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        path = old_state(disk / "state.db")
        with closing(sqlite3.connect(path)) as settled:
            settled.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        request.getfixturevalue("a_next_format")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with closing(connect_readonly(path)) as opened:
            assert len(queue.listing(opened)) == 4
            assert opened.execute("SELECT count(*) FROM extras").fetchone()[0] == 4
            with pytest.raises(sqlite3.OperationalError):
                events.record(opened, now=1.0, kind="x", message="m")
        assert [found.name for found in disk.iterdir()] == ["state.db"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink")


def migrate_under_strace(path: Path, scripts: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["strace", "-f", "-qq", *options, sys.executable, "-c", MIGRATE, str(path), str(NEXT), str(scripts)],
        capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@pytest.mark.crash
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to kill at a system call")
def test_killed_at_any_system_call_of_a_migration_it_is_old_or_new_and_the_next_opening_completes_it(
    tmp_path: Path,
) -> None:
    scripts = scripts_with(tmp_path, NEXT_SQL)
    origin = tmp_path / "origin"
    origin.mkdir()
    before = contents(present_state(origin))
    trace = tmp_path / "trace"

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(origin, folder)
        return folder / "state.db"

    whole = migrate_under_strace(fresh("whole"), scripts, "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    assert whole.returncode == 0, whole.stderr
    after = contents(tmp_path / "whole" / "state.db")
    assert after["format"] == NEXT
    lines = trace.read_text().splitlines()
    counts = {call: sum(f"{call}(" in line for line in lines) for call in CALLS}
    assert counts["fdatasync"] + counts["fsync"] >= 4
    points = [(call, number) for call in CALLS for number in range(1, counts[call] + 1)]
    chosen = points if EVERY_ARROW else points[:: max(1, len(points) // 12)]

    seen: set[int] = set()
    for call, number in chosen:
        path = fresh(f"{call}-{number}")
        killed = migrate_under_strace(
            path, scripts, "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"
        )
        assert killed.returncode in (-9, 137), (call, number, killed.stderr)
        found = contents(path)
        seen.add(found["format"])
        if found["format"] == NEXT:
            assert found["intents"] == after["intents"], (call, number)
            assert len(found["jobs"]) == 4, (call, number)
            assert contents(migrating.backup_path(path, NEXT - 1)) == before, (call, number)
        else:
            assert found == before, (call, number)
        again = subprocess.run(
            [sys.executable, "-c", MIGRATE, str(path), str(NEXT), str(scripts)], capture_output=True, timeout=60
        )
        assert again.returncode == 0, (call, number, again.stderr)
        assert contents(path)["format"] == NEXT
        assert contents(migrating.backup_path(path, NEXT - 1)) == before, (call, number)
        shutil.rmtree(path.parent)
    assert seen == {NEXT - 1, NEXT}


def test_the_history_of_a_kind_is_found_by_an_index_however_long_it_is(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "state.db", create=True)) as connection:
        for question in (
            "SELECT * FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1",
            "SELECT * FROM events WHERE kind = ? AND id > 5 ORDER BY id",
        ):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {question}", ("x",)).fetchall()
            assert "USING INDEX events_by_kind" in plan[0]["detail"]
