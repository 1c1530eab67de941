"""A workspace with simulated trainers: real files, real SQLite, real processes, no torch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.daemon import loop, settings
from overnight.daemon.context import Context
from overnight.daemon.errands import Errands
from overnight.daemon.waiting import Bell
from overnight.database import events, intents, queue
from overnight.database.connection import connect
from overnight.disk import attempts, checkpoints, config, workspace
from overnight.domain.attempt import Attempt
from overnight.domain.config import Settings
from overnight.domain.job import Job, JobState, Priority
from overnight.launchers.choice import SIMULATED, launcher_of
from overnight.launchers.local import Local

SETTINGS: dict[str, Any] = {
    "model_name": "simulated",
    "base_model": "builtin:tiny",
    "train": {"batch_size": 4, "threads": 1},
    "checkpoint": {"every_steps": 5, "keep": 5},
    "queue": {"settle_s": 0.05, "poll_interval_s": 0.05},
    "disk": {"min_free_gb": 0.0},
}


class Rig:
    """One workspace and what is done to it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.layout = workspace.new_layout(root)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.options = ""
        self._monkeypatch = monkeypatch
        self._contexts: list[Context] = []
        self.simulate()

    # the workspace

    def make(self, *, files: int = 0, rows: int = 64, **changes: Any) -> Rig:
        """Make the workspace, and queue so many jobs of so many rows."""
        workspace.create(self.layout)
        connect(self.layout.database, create=True).close()
        workspace.finish(self.layout, {})
        self.set(**changes)
        for number in range(files):
            self.submit(f"file{number}.jsonl", rows=rows)
        return self

    def set(self, **changes: Any) -> None:
        """Write config.json: the rig's settings with some changed, by dotted key (a__b for a.b)."""
        values = json.loads(json.dumps(SETTINGS))
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                values.setdefault(section, {})[name] = value
            else:
                values[section] = value
        self.layout.config.write_text(json.dumps(values))

    def settings(self) -> Settings:
        """Return what config.json says."""
        return config.read(self.layout)

    def simulate(self, **options: object) -> None:
        """Say how simulated trainers behave from now on."""
        self.options = ",".join(f"{name}={value}" for name, value in options.items())
        if self._monkeypatch is not None:
            self._monkeypatch.setenv(SIMULATED, self.options)

    def connect(self) -> sqlite3.Connection:
        return connect(self.layout.database)

    def submit(self, name: str, *, rows: int = 64, priority: Priority = Priority.NORMAL) -> Job:
        """Queue a job whose dataset is stored, as the intake does it."""
        data = write_rows(name, rows)
        identity = hashlib.sha256(data).hexdigest()
        folder = self.layout.datasets / identity
        folder.mkdir(exist_ok=True)
        (folder / "rows.jsonl").write_bytes(data)
        connection = self.connect()
        try:
            return queue.submit(
                connection, claim=f"{name}-{time.time_ns()}", file=name, sha256=identity, dataset=identity,
                priority=priority, examples=rows, accounting={}, rejection=None, now=time.time(),
            )  # fmt: skip
        finally:
            connection.close()

    def wish(self, name: str, **value: Any) -> None:
        connection = self.connect()
        intents.wish(connection, name, value, now=time.time())
        connection.close()

    def withdraw(self, name: str) -> None:
        connection = self.connect()
        intents.withdraw(connection, name)
        connection.close()

    def drop(self, name: str, *, rows: int = 8, data: bytes | None = None) -> Path:
        """Put a file into the inbox, whole at once."""
        hidden = self.layout.inbox / ".arriving"
        hidden.write_bytes(write_rows(name, rows) if data is None else data)
        return hidden.rename(self.layout.inbox / name)

    # the loop in this process

    def context(self) -> Context:
        """Return a new loop's memory, as the daemon makes it at its start."""
        bell = Bell()
        log = logging.getLogger(f"test.{id(self)}")
        made = Context(
            layout=self.layout, connection=self.connect(), launcher_of=launcher_of, log=log,
            limits=settings.fallback(), bell=bell, errands=Errands(wake=bell.ring), started_at=time.time(),
        )  # fmt: skip
        self._contexts.append(made)
        return made

    def close(self, context: Context) -> None:
        """End a loop of this process; what it began goes on."""
        context.close()
        self._contexts.remove(context)

    def tick_until(self, context: Context, condition: Callable[[], Any], *, timeout: float = 60) -> Any:
        """Tick until something holds; return it."""
        deadline = time.monotonic() + timeout
        while True:
            loop.tick(context)
            if found := condition():
                return found
            if time.monotonic() > deadline:
                told = [event["message"] for event in events.newest(context.connection)]
                raise AssertionError(f"never so; {context.standing}; {told[-12:]}")
            time.sleep(0.01)

    # the loop as a process

    def start_loop(self, *, wrapper: list[str] | None = None) -> subprocess.Popen[bytes]:
        """Start the real daemon, perhaps under another program."""
        return self._start([*(wrapper or []), sys.executable, "-m", "overnight.daemon", str(self.layout.root)])

    def start_watchdog(self) -> subprocess.Popen[bytes]:
        self.wish("up")
        return self._start([sys.executable, "-m", "overnight.daemon.watchdog", str(self.layout.root)])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        log = os.open(self.layout.logs / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, SIMULATED: self.options},
            )  # fmt: skip
        finally:
            os.close(log)
        self.processes.append(child)
        return child

    def wait(self, condition: Callable[[], Any], *, timeout: float = 60, what: str = "it") -> Any:
        """Poll until something holds; return it."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} never came\n{self.log()[-4000:]}")
            time.sleep(0.01)
        return found

    # what is to be seen

    def log(self) -> str:
        texts = [path.read_text(errors="replace") for path in sorted(self.layout.logs.glob("*.log"))]
        return "\n".join(texts)

    def jobs(self) -> list[Job]:
        connection = self.connect()
        try:
            return queue.listing(connection)
        finally:
            connection.close()

    def attempts(self) -> list[Attempt]:
        connection = self.connect()
        try:
            return [attempt for job in queue.listing(connection) for attempt in queue.attempts_of(connection, job.id)]
        finally:
            connection.close()

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        connection = self.connect()
        try:
            return [event for event in events.since(connection, limit=100_000) if event["kind"].startswith(kind)]
        finally:
            connection.close()

    def daemon_pid(self) -> int | None:
        from overnight.disk.files import lock_holder

        seen = lock_holder(self.layout.daemon_lock)
        return seen.get("pid") if seen else None

    def trainer_pid(self) -> int | None:
        """Return the pid of the trainer that holds the model."""
        from overnight.disk.files import lock_holder

        seen = lock_holder(self.layout.model_lock)
        return seen.get("pid") if seen else None

    def step(self) -> int:
        """Return the step that the newest heartbeat tells."""
        folders = sorted(self.layout.attempts.iterdir())
        beats = [beat for folder in folders if (beat := attempts.read_heartbeat(folder)) is not None]
        return beats[-1].step if beats else 0

    def is_done(self) -> bool:
        return all(job.state is JobState.SUCCEEDED for job in self.jobs())

    def model(self) -> dict[str, Any]:
        """Return what the newest verified checkpoint holds: the chain of hashes, and the rows in their order."""
        newest, _ = checkpoints.newest_verified(self.layout.model)
        assert newest is not None
        value: dict[str, Any] = json.loads((Path(newest.path) / "state.json").read_text())
        return value

    # the end

    def settle(self) -> None:
        """End everything and put the database into one file, so that the folder can be copied."""
        self.end()
        connection = self.connect()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def end(self) -> None:
        """End every process of this workspace."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.layout.root).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue
        for child in self.processes:
            child.wait()
        for context in self._contexts:
            context.close()
            children = list(context.helpers.values())
            if isinstance(context.launcher, Local):
                children += list(context.launcher._children.values())
            for child in children:
                child.wait()


def write_rows(name: str, rows: int) -> bytes:
    return "".join(json.dumps({"text": f"{name} row {number}"}) + "\n" for number in range(rows)).encode()
