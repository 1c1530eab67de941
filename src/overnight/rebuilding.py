"""A lost database, made anew from what lies in the workspace: where that is exact; else it is refused, untouched.

Killed anywhere, it is simply done again: the damaged file keeps another name, the new one gets its own last.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from overnight.database import restoring
from overnight.disk import attempts, files, remains
from overnight.disk.attempts import Notice, Wish
from overnight.disk.layout import Layout
from overnight.domain import remains as work
from overnight.domain.errors import BusyError

ENDINGS = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was done."""

    why: str
    jobs: int
    notes: list[str]
    kept: list[str]  # what the damaged files are called now


def mend(layout: Layout, *, now: float) -> Mended | None:
    """Make a lost or damaged database anew; None where it is sound.

    Raises OvernightError where that cannot be done exactly, or where the file is of a newer format; BusyError while
    somebody of this workspace is at work. Nothing is changed then.
    """
    why = restoring.damage(layout.database)
    if why is None or not layout.state.is_dir():
        return None
    lock = files.Lock(layout.daemon_lock)
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    files.require_lock(lock, holder=who, what="The database is lost, and somebody is at work on this workspace")
    try:
        _require_rest(layout)
        why = restoring.damage(layout.database)  # somebody may have mended it meanwhile
        return _mend(layout, why, now=now) if why is not None else None
    finally:
        lock.release()


def _mend(layout: Layout, why: str, *, now: float) -> Mended:
    rebuilt = work.rebuild(remains.gather(layout), now=now)
    new = layout.state / "state.db.new"
    for ending in ENDINGS:
        files.remove_file(new.with_name(new.name + ending))
    restoring.write(new, rebuilt, why=why, now=now)
    kept: list[str] = []
    mark = f".damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{files.token()}"
    try:
        for ending in ENDINGS:  # the file itself first: from then on it is missing, and all is done again
            path = Path(f"{layout.database}{ending}")
            if os.path.lexists(path):
                files.rename(path, path.with_name(f"{path.name}{mark}"))
                kept.append(f"{path.name}{mark}")
        files.rename_durably(new, layout.database)
    except OSError as error:
        raise files.disk_error(error, layout.database) from error
    return Mended(why=why, jobs=len(rebuilt.jobs), notes=rebuilt.notes, kept=kept)


def _require_rest(layout: Layout) -> None:
    """Raise BusyError while a trainer is at work; it is asked to save and leave."""
    holder = files.lock_holder(layout.model_lock)
    if holder is None:
        return
    attempt = holder.get("attempt")
    if isinstance(attempt, str) and layout.attempt(attempt).is_dir():
        attempts.write_notice(layout.attempt(attempt), Notice(wish=Wish.SAVE_AND_LEAVE, reason="the database is lost"))
    raise BusyError(
        "The database is lost, and a trainer is still at work",
        found=f"pid {holder.get('pid', 'unknown')}, asked to save and leave",
        expected="no trainer at work",
        fix="try again when it has left: the database is then made anew from what lies here",
        code="not_yet",
    )
