"""From an older format to this one: a backup first, then all steps in one transaction, so old or new and never half.

A migration only adds (tables, columns that are empty or have a default, indexes): a loop of the older version that is
still running goes on with the migrated database.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

from overnight.domain.errors import OvernightError

SCRIPTS = resources.files("overnight.database").joinpath("migrations")
"""One file of SQL a format: 001.sql makes the first one."""


def format_of(connection: sqlite3.Connection) -> int:
    """Return the format that a database is in, 0 for one that holds nothing yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def backup_path(path: Path, number: int) -> Path:
    """Return where the database of an older format is kept when it is migrated."""
    return path.with_name(f"{path.stem}.format-{number}{path.suffix}")


def bring_up(connection: sqlite3.Connection, path: Path, *, version: int) -> None:
    """Migrate inside the transaction that the caller has begun, after a backup of what is there.

    Another process may have been first: the format is read again under the lock. Raises OvernightError where the backup
    cannot be made or the result does not hold together; the caller then takes everything back.
    """
    found = format_of(connection)
    if found >= version:
        return
    if found:
        back_up(path, backup_path(path, found))
    run_scripts(connection, version=version)
    if found:
        name = backup_path(path, found).name
        message = (
            f"state of an older version: migrated from format {found} to {version}; as it was, it is kept in {name}"
        )
        connection.execute(
            "INSERT INTO events (at, kind, level, message, data)"
            " VALUES ((julianday('now') - 2440587.5) * 86400, 'database.migrated', 'warning', ?, ?)",
            (message, json.dumps({"from": found, "to": version, "backup": name})),
        )


def run_scripts(connection: sqlite3.Connection, *, version: int) -> None:
    """Run the steps that are missing, inside a transaction of the caller's."""
    for number in range(format_of(connection) + 1, version + 1):
        for statement in _statements(SCRIPTS.joinpath(f"{number:03d}.sql").read_text()):
            connection.execute(statement)
    broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise OvernightError(
            "The database cannot be migrated",
            found=f"{len(broken)} rows that refer to nothing, the first in table {broken[0][0]}",
            expected="a database that holds together",
            fix="nothing was changed; go on with the version that wrote it, and report this",
            code="database",
        )
    connection.execute(f"PRAGMA user_version={version}")


def back_up(path: Path, target: Path) -> None:
    """Copy the committed state into a file of its own; whoever is killed meanwhile leaves the older copy or none.

    SQLite writes the copy in one transaction of its own and syncs it. Raises OvernightError where that fails.
    """
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file that can be copied as it is
            sound = copy.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.OperationalError:
        raise  # the disk: told by whoever opens the database
    except sqlite3.DatabaseError as error:
        sound = str(error)
    if sound != "ok":
        raise OvernightError(
            f"The database cannot be kept as {target.name} before it is migrated",
            found=str(sound),
            expected=f"a sound copy in {target}",
            fix=f"move {target} away if it is there, and try again; nothing was changed",
            code="database",
        )


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
