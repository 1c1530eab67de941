"""While nothing trains: one kernel lock holds off every new attempt, and whoever changes what attempts start from.

Whether training is active is told by the kernel's lock on the model and by the open attempts, never by the age of a
file: a trainer that stands still, or whose status cannot be read, is at work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from overnight.database import queue
from overnight.database.connection import Connection
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Attempt
from overnight.domain.errors import BusyError
from overnight.domain.picture import iso
from overnight.launchers.base import Exited
from overnight.launchers.choice import launcher_of


@contextmanager
def at_rest(layout: Layout, connection: Connection, *, what: str, fix: str, now: float) -> Iterator[None]:
    """Hold off every new attempt; ``what`` tells others why. Raises BusyError where one is at work."""
    refuse_while_active(layout, connection, fix=fix)  # before the lock: an attempt being opened is not disturbed
    lock = files.Lock(layout.checkpoints_lock)
    if not lock.acquire(holder={"pid": os.getpid(), "host": socket.gethostname(), "since": now, "what": what}):
        refuse_while_active(layout, connection, fix=fix)  # the better words, where an attempt was opened just now
        raise held_by(files.lock_holder(lock.path) or {})
    try:
        refuse_while_active(layout, connection, fix=fix)
        yield
    finally:
        lock.release()


def held_by(holder: dict[str, object]) -> BusyError:
    """Return the refusal where somebody else changes what attempts start from."""
    return BusyError(
        "Something else is done to the model now",
        found=f"{holder.get('what') or 'an attempt is being started'} (pid {holder.get('pid', 'unknown')})",
        expected="nobody else at work here",
        fix="wait for its end, then try again",
        code="held",
    )


def refuse_while_active(layout: Layout, connection: Connection, *, fix: str) -> None:
    """Raise BusyError where a trainer is at work, and name it."""
    attempts = queue.open_attempts(connection)
    holder = files.lock_holder(layout.model_lock)
    if holder is not None:
        name = holder.get("attempt") or (attempts[0].id if attempts else "of an unknown job")
        since = holder.get("since")
        when = f" since {iso(since)}" if isinstance(since, int | float) else ""
        raise _active(f"attempt {name} (pid {holder.get('pid', 'unknown')}) holds the lock on the model{when}", fix)
    is_watched = files.lock_holder(layout.daemon_lock) is not None
    for attempt in attempts:
        if is_watched or _is_alive(attempt):
            raise _active(f"attempt {attempt.id} of job {attempt.job} is {attempt.state.value}: {attempt.reason}", fix)


def _is_alive(attempt: Attempt) -> bool:
    """Return whether an attempt that no daemon looks after has a living process."""
    return attempt.handle is not None and not isinstance(launcher_of("local").poll(attempt.handle), Exited)


def _active(found: str, fix: str) -> BusyError:
    return BusyError(
        "ABORT: training is active", found=found, expected="no trainer at work on this model", fix=fix, code="active"
    )
