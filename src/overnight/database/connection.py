"""Opening the database: WAL, synchronous=FULL, numbered migrations, one transaction a change."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from overnight.database import migrating
from overnight.domain.errors import BusyError, DiskError, OvernightError

Connection = sqlite3.Connection
"""For the floors above, which do not import sqlite3."""

VERSION = 3
"""The format that this program writes (PRAGMA user_version)."""

BUSY_TIMEOUT_S = 30.0
BUSY_POLL_S = 0.005
PRIMARY = 0xFF
"""The bits of an SQLite result code that say what it is; the others say more of it."""


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open the database, migrated to this program's format.

    Raises OvernightError where it is missing, damaged, or newer than this program.
    """
    if not create and not path.exists():
        raise OvernightError(
            "The workspace has no database",
            found=f"no file {path}",
            expected="the file that overnight init makes",
            fix="overnight up makes it anew from what lies in the workspace, where that is exact",
            code="database",
        )
    connection = _open(path)
    try:
        if not create:
            _refuse_empty(connection, path)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _migrate(connection, path)
    except OvernightError:
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _told(error, path) from error
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Write ahead from now on. Of several that make it at once SQLite refuses some, without any waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(BUSY_POLL_S)
        else:
            return


def _refuse_empty(connection: sqlite3.Connection, path: Path) -> None:
    """Raise OvernightError for a file that holds no database: made one silently, it would forget every job."""
    if migrating.format_of(connection) == 0:
        raise OvernightError(
            "The database is damaged",
            found=f"{path} is empty",
            expected="the database of this workspace",
            fix="overnight up makes it anew from what lies in the workspace, where that is exact",
            code="database",
        )


def takes_writes(connection: sqlite3.Connection) -> bool:
    """Return whether a change can be written now; it writes, and changes nothing."""
    try:
        with transaction(connection):  # under its lock: a newer program may be migrating it
            connection.execute(f"PRAGMA user_version={migrating.format_of(connection)}")
    except sqlite3.Error:
        return False
    return True


def wait_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    """Let a connection wait so long for other writers, and not longer: who is watched must keep moving."""
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open the database for reading only; nothing is created. Raises like connect.

    One of an older format is migrated first, or, where the disk takes no writes, a copy of it in memory.
    """
    if not path.exists():
        return connect(path)  # raises
    connection = _open(path, is_frozen=_is_frozen(path))
    try:
        connection.execute("PRAGMA query_only=ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _refuse_newer(version)
    except OvernightError:
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _told(error, path) from error
    if version == VERSION:
        return connection
    with closing(connection):
        try:
            return connect(path)
        except DiskError:
            return _migrated_copy(connection)


def _is_frozen(path: Path) -> bool:
    """Return whether nobody can write there (a read-only file system) and no process has it open.

    SQLite reads a database in WAL mode from such a place only when it is told that nothing changes.
    """
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY) and not path.with_name(f"{path.name}-shm").exists()


SIBLINGS = ("", "-wal", "-shm", "-journal")
"""The files of a database, by what their names end in."""


def _require_files(path: Path) -> None:
    """Raise OvernightError where a folder or a FIFO has the name of one of the database's files: reading would wait."""
    for sibling in (path.with_name(f"{path.name}{ending}") for ending in SIBLINGS):
        try:
            is_file = stat.S_ISREG(os.stat(sibling).st_mode)
        except OSError:
            continue  # not there, or not to be looked at: SQLite says more
        if not is_file:
            raise OvernightError(
                "The database is damaged",
                found=f"{sibling} is no regular file",
                expected="an SQLite database",
                fix=f"move {sibling} away, then start again with overnight up",
                code="database",
            )


def _open(path: Path, *, is_frozen: bool = False) -> sqlite3.Connection:
    _require_files(path)
    target: Path | str = f"{path.resolve().as_uri()}?immutable=1" if is_frozen else path
    try:
        connection = sqlite3.connect(target, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=is_frozen)
    except sqlite3.OperationalError as error:
        raise translated(error, path) from error
    connection.row_factory = sqlite3.Row
    return connection


def _told(error: sqlite3.DatabaseError, path: Path) -> OvernightError:
    return translated(error, path) if isinstance(error, sqlite3.OperationalError) else damaged(error, path)


def damaged(error: sqlite3.DatabaseError, path: Path) -> OvernightError:
    """Return the user's words for a file that is no sound database."""
    return OvernightError(
        "The database is damaged",
        found=f"{path}: {error}",
        expected="an SQLite database",
        fix="end everything with overnight down; overnight up then makes it anew from what lies here, where that is"
        " exact; datasets and checkpoints stay",
        code="database",
    )


def translated(error: sqlite3.OperationalError, path: Path) -> OvernightError:
    """Return the user's words for an operational error of SQLite."""
    text = str(error)
    if "full" in text or "readonly" in text or "I/O" in text or "unable to open" in text:
        return DiskError(
            f"Cannot use the database {path}",
            found=text,
            expected="a file system that takes writes",
            fix="free space or make it writable; work goes on by itself then",
        )
    if "locked" in text or "busy" in text:
        return BusyError(
            f"The database is in use: {text}",
            found="another process holds it",
            expected="a moment without another writer",
            fix="try again",
            code="locked",
        )
    return OvernightError(f"The database refused: {text}", fix="try again; overnight doctor tells more")


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise OvernightError(
            "The database was written by a newer Overnight",
            found=f"format {version}",
            expected=f"format {VERSION} or older",
            fix="install that newer version; nothing was changed",
        )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database to this program's format, all steps in one transaction: old or new, never neither."""
    version = migrating.format_of(connection)
    _refuse_newer(version)
    if version == VERSION:
        return
    connection.execute("PRAGMA foreign_keys=OFF")  # no effect inside a transaction; checked at its end instead
    with transaction(connection):
        migrating.bring_up(connection, path, version=VERSION)
    connection.execute("PRAGMA foreign_keys=ON")


def _migrated_copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy in memory in this program's format: for reading where the disk takes no writes."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    copy.row_factory = sqlite3.Row
    connection.backup(copy)
    with transaction(copy):
        migrating.run_scripts(copy, version=VERSION)
    copy.execute("PRAGMA query_only=ON")
    return copy


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run a change: all or nothing, and no other writer in between; inside another change it is a part of that."""
    if connection.in_transaction:
        yield connection
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """Read several things as they were at one moment, whoever writes in between."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
