"""Making copies in the second place: ``python -m overnight.daemon.copying WORKSPACE``, a short life beside the loop.

It goes last at processor and disk, touches nothing of the training, may be killed at any instant, and ends with the
loop. Whatever hinders it is told once and tried again later.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

from overnight.database import events
from overnight.database.backups import commits_since
from overnight.database.connection import connect
from overnight.disk import backup_memory, backups, checkpoints, config, files, versions, workspace
from overnight.disk.backup_memory import Memory
from overnight.disk.layout import Layout
from overnight.domain import backup
from overnight.domain.backup import Copy, Kind
from overnight.domain.checkpoint import Verdict
from overnight.domain.config import BackupSettings
from overnight.domain.errors import DiskError, ExitCode, FailedError, OvernightError
from overnight.launchers.humble import be_humble

TRIES = 3
"""So many checkpoints are tried, the newest first: one may be damaged, or be removed while it is copied."""


class Run:
    """One look at what is due."""

    def __init__(self, layout: Layout, connection: sqlite3.Connection, settings: BackupSettings, *, now: float) -> None:
        assert settings.path is not None
        self.layout = layout
        self.connection = connection
        self.settings = settings
        self.place = Path(settings.path)
        self.now = now
        self.memory: Memory = backup_memory.read(layout, settings.path)
        self.copies: dict[str, Copy] = {}
        self.troubles: list[OvernightError] = []

    def do(self, *, model_name: str) -> None:
        """Copy what is due, then remove what need not stay. Raises the first trouble after trying everything."""
        memory = self.memory
        memory.token = backups.open_place(
            self.layout, self.place, known=memory.token or None, model_name=model_name, now=self.now
        )
        backups.remove_staging(self.place)
        self.copies = backup_memory.judge(memory, self.place, now=self.now)
        self._tell_damaged()
        backup_memory.write(self.layout, memory)
        if self.settings.versions:
            for name in backup.versions_due(versions.identities(self.layout), self.copies):
                self._try(name)
        self._copy_checkpoint()
        self._copy_settings()
        self._remove_surplus()
        if not self.troubles:
            memory.looked_at = self.now
        backup_memory.write(self.layout, memory)  # with a trouble too: what was copied is not to be copied again
        if self.troubles:
            raise self.troubles[0]

    def _tell_damaged(self) -> None:
        damaged = {name: copy.reason for name, copy in self.copies.items() if not copy.is_verified}
        for name, reason in damaged.items():
            if self.memory.damaged.get(name) != reason:
                self._record(
                    f"the copy of {name} counts no more: {reason}", kind="backup.damaged", level="error", name=name
                )
        self.memory.damaged = damaged

    def _copy_checkpoint(self) -> None:
        """Copy the newest whole checkpoint where it is due."""
        commits, newest = commits_since(self.connection, self.memory.commit)
        has_copy = any(copy.kind is Kind.CHECKPOINT and copy.is_verified for copy in self.copies.values())
        if not backup.is_checkpoint_due(commits=commits, every=self.settings.every_checkpoints, has_copy=has_copy):
            return
        before, tried = list(self.troubles), set[str]()
        for _ in range(TRIES):
            name = next((name for name in self._candidates() if name not in tried), None)
            if name is None:  # they made way for a version: nothing is due until one is saved again
                self.memory.commit = newest if not tried else self.memory.commit
                return
            tried.add(name)
            if self._is_there(name) or self._try(name):
                self.memory.commit, self.troubles = newest, before
                return
            if not isinstance(self.troubles[-1], FailedError):
                return  # the second place itself is in trouble

    def _candidates(self) -> list[str]:
        """Return the checkpoints that look whole, the newest first."""
        found = checkpoints.scan(self.layout.model, verify_content=False)
        return [Path(report.path).name for report in found if report.verdict is Verdict.VERIFIED]

    def _is_there(self, name: str) -> bool:
        copy = self.copies.get(name)
        return (
            copy is not None
            and copy.is_verified
            and backups.is_same(backups.source_of(self.layout, name), Path(copy.path))
        )

    def _try(self, name: str) -> bool:
        """Copy one; keep the trouble where that fails. A damaged original is not copied anew each time."""
        source = backups.source_of(self.layout, name)
        looks = backups.looks_of(source)
        known = self.memory.why_unusable(name, looks, now=self.now)
        if known:
            self.troubles.append(backups.unusable(source, known))
            return False
        self.memory.copying = name
        backup_memory.write(self.layout, self.memory)
        try:
            copy = backups.store(self.layout, self.place, name)
        except (DiskError, FailedError) as error:
            self.troubles.append(error)
            if isinstance(error, FailedError):
                self.memory.unusable[name] = {"looks": looks, "at": self.now, "found": error.found}
            return False
        finally:
            self.memory.copying = ""
        backup_memory.note(self.memory, copy, looks=backups.looks_of(Path(copy.path)), now=self.now)
        self.memory.damaged.pop(name, None)
        self.memory.unusable.pop(name, None)
        self.copies[name] = copy
        backup_memory.write(self.layout, self.memory)
        self._record(
            f"{name} is copied to {copy.path} ({copy.bytes / 1e6:.1f} MB) and read back: {copy.reason}",
            kind="backup.made", name=name, path=copy.path, bytes=copy.bytes,
        )  # fmt: skip
        return True

    def _copy_settings(self) -> None:
        """Keep config.json beside the copies: with it and a copy the work can go on on another machine."""
        try:
            ours, target = self.layout.config.read_bytes(), self.place / "config.json"
            if not target.is_file() or target.read_bytes() != ours:
                files.write_durably(target, ours)
        except (OSError, DiskError) as error:
            self.troubles.append(error if isinstance(error, DiskError) else files.disk_error(error, self.place))

    def _remove_surplus(self) -> None:
        """Remove what need not stay; every copy that stays instead was read to the last byte."""
        items = backup.plan(self.copies.values(), daily=self.settings.daily, weekly=self.settings.weekly)
        for item in [one for one in items if not one.is_kept]:
            try:
                backups.remove(self.place, item.copy.name)
            except DiskError as error:
                self.troubles.append(error)
                return
            self.memory.copies.pop(item.copy.name, None)
            self._record(
                f"the copy of {item.copy.name} is removed: {item.reason}", kind="backup.removed", name=item.copy.name,
                freed_bytes=item.copy.bytes,
            )  # fmt: skip

    def _record(self, message: str, *, kind: str, level: str = "info", **data: object) -> None:
        print(message, flush=True)
        events.record(self.connection, now=time.time(), kind=kind, message=message, level=level, **data)


def main(folder: Path) -> ExitCode:
    """Make the copies that are due."""
    be_humble()
    try:
        layout = workspace.open_workspace(folder)
        lock = files.Lock(layout.backup_lock)
        if not lock.acquire(holder={"pid": os.getpid(), "since": time.time()}):
            return ExitCode.BUSY
        settings = config.read(layout)
        if settings.backup.path is None:
            return ExitCode.OK
        connection = connect(layout.database)
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        Run(layout, connection, settings.backup, now=time.time()).do(model_name=settings.model_name)
    except (OvernightError, OSError, sqlite3.Error) as error:
        _tell(connection, error)
        return ExitCode.PROBLEM
    return ExitCode.OK


def _tell(connection: sqlite3.Connection, error: Exception) -> None:
    """Write into the history what hinders the copies, once while it stays the same."""
    told = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    message = f"copies in the second place wait, it is tried again: {told}"
    last, made = events.newest_of(connection, "backup.waiting"), events.newest_of(connection, "backup.made")
    if last is None or last["message"] != message or (made is not None and made["id"] > last["id"]):
        print(message, flush=True)
        events.record(connection, now=time.time(), kind="backup.waiting", message=message, level="warning")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon.copying WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
