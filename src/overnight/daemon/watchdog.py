"""The watchdog: ``python -m overnight.daemon.watchdog WORKSPACE``. It keeps the loop alive and never gives up.

It starts the loop, waits on it and listens to its beat; a loop that somebody else started is taken up as it is. One
that hangs or is stopped is killed, by its identity, after what can be seen of it was written down. The watchdog ends
when the loop ended on purpose, or when nobody wants it to run. It imports little: it is to stay small for weeks.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from overnight.daemon import traces
from overnight.daemon.kept import End, Kept
from overnight.daemon.locks import holder
from overnight.daemon.waiting import Bell
from overnight.database import events, intents
from overnight.database.connection import connect, wait_at_most
from overnight.disk import attempts, config, files, lease, workspace
from overnight.disk.layout import Layout
from overnight.disk.logs import open_log
from overnight.domain.errors import ExitCode, OvernightError
from overnight.launchers import guards, processes
from overnight.launchers.base import LaunchError
from overnight.launchers.beats import Beat

LOOK_S = 1.0
DATABASE_WAIT_S = 2.0
UNKILLABLE_S = 10.0
"""After so long a killed process that is still there is told of."""


class Replaced(Exception):
    """Another watchdog has taken our place; it looks after the loop."""


@dataclass(slots=True)
class Watchdog:
    """One watchdog and what it remembers."""

    layout: Layout
    log: logging.Logger
    bell: Bell
    lock: files.Lock
    beat: Beat
    loop: Kept
    trouble: str = ""  # told once while it stays the same

    def keep(self) -> ExitCode:
        """Keep the loop alive until it ends on purpose."""
        while True:
            self.beat.say(self._doing(), at=attempts.boot_time())
            try:
                code = self._look(self.loop)
            except Replaced:
                raise
            except Exception as error:  # the border of a look: whatever it is, the next one is tried
                self._complain(f"a look failed and is tried again: {type(error).__name__}: {error}")
                code = None
            if code is not None:
                return code
            self.bell.wait(LOOK_S, also=self.loop.exit_descriptor)

    def _look(self, kept: Kept) -> ExitCode | None:
        """Do what is to be done now; return how the watchdog ends, None while it goes on."""
        self._keep_lock()
        if kept.is_there or kept.child is not None:
            end = kept.find_end()
            if end is not None:
                return self._draw_consequence(kept, end)
            self._pass_on(kept)
            self._judge(kept)
            return None
        if kept.adopt():
            assert kept.identity is not None
            self.log.info("the %s runs already, as pid %d", kept.name, kept.identity.pid)
            return None
        if (other := lease.foreign(self.layout)) is not None:
            self.log.error("another machine has taken the workspace (%s): the watchdog ends", other)
            return ExitCode.BUSY
        if not self._is_wanted():
            self.log.info("nobody wants the %s to run: the watchdog ends", kept.name)
            return ExitCode.OK
        if time.monotonic() >= kept.not_before:
            self._start(kept)
        return None

    def _start(self, kept: Kept) -> None:
        try:
            kept.begin()
        except LaunchError as error:
            kept.last_end = f"cannot be started: {error.found}"
            self._complain(f"the {kept.name} cannot be started: {error.found}; {error.fix}")
            self._pause(kept, least_s=LOOK_S)
            return
        if kept.child is not None:
            self.log.info("the %s runs as pid %d", kept.name, kept.child.pid)

    def _draw_consequence(self, kept: Kept, end: End) -> ExitCode | None:
        """Decide what follows from an end."""
        if end.code == ExitCode.OK:
            self.log.info("the %s ended on purpose: the watchdog ends", kept.name)
            return ExitCode.OK
        if not self.layout.root.is_dir():
            self.log.error("the workspace is gone: the watchdog ends")
            return ExitCode.USAGE
        if end.code == ExitCode.BUSY:  # another one was quicker, and is about to say who it is
            self._pause(kept, least_s=LOOK_S)
        elif self._is_wanted():
            self._say(f"the {kept.name} {end.why}; it is started again", kind=f"{kept.name}.restarted")
            self._pause(kept, least_s=0.0)
        return None

    def _keep_lock(self) -> None:
        """Make our lock file again where somebody deleted it. Raises Replaced where another watchdog was quicker."""
        if self.lock.is_intact():
            return
        self.lock.release()
        try:
            is_ours = self.lock.acquire(holder=holder(time.time()))
        except OSError:
            return  # the folder itself is gone: the loop ends, and then so do we
        if not is_ours:
            raise Replaced
        self.log.error("%s was deleted under the running watchdog; it is made again", self.lock.path.name)

    def _pass_on(self, kept: Kept) -> None:
        """Tell it what we were told: each signal once, when it can hear it."""
        if kept.identity is None or kept.passed_on >= min(self.bell.signals, 2):
            return
        if kept.has_begun(at=attempts.boot_time()):
            kept.passed_on += 1
            processes.send(kept.identity, signal.SIGTERM)

    def _judge(self, kept: Kept) -> None:
        """Kill what hangs: for a guard that is always harmless, whatever it was about to do."""
        if kept.identity is None:
            return
        if kept.killed_for:
            self._kill_again(kept)
            return
        limit_s = config.raw_number(self.layout, "watch", "daemon_dead_s", 30.0)
        verdict = kept.judge(at=attempts.boot_time(), limit_s=limit_s)
        if verdict is None or not verdict.is_hung:
            self.trouble = ""
            return
        self.log.error("the %s (pid %d) is killed: %s", kept.name, kept.identity.pid, verdict.reason)
        for line in traces.of_guard(kept.identity):
            self.log.error("  %s", line)
        processes.send(kept.identity, signal.SIGKILL)
        kept.killed_for, kept.killed_at = verdict.reason, time.monotonic()
        self._record(f"the {kept.name} is killed: {verdict.reason}", kind=f"{kept.name}.hung", level="error")

    def _kill_again(self, kept: Kept) -> None:
        assert kept.identity is not None
        processes.send(kept.identity, signal.SIGKILL)
        if time.monotonic() - kept.killed_at > UNKILLABLE_S:
            self._complain(
                f"the {kept.name} (pid {kept.identity.pid}) cannot be killed: it is frozen or waits in the kernel;"
                " a new one is started when it is gone"
            )

    def _is_wanted(self) -> bool:
        """Return whether the loop should run: to work, or to see a trainer out; where nobody can tell, it should."""
        try:
            with self._database() as connection:
                standing = intents.standing(connection)
        except (OvernightError, sqlite3.Error) as error:
            self._complain(str(error))
            return self.layout.root.is_dir() and not self.bell.signals
        is_ending = "down" in standing or self.bell.signals > 0
        if is_ending:
            return files.lock_holder(self.layout.model_lock) is not None
        return "up" in standing

    def _pause(self, kept: Kept, *, least_s: float) -> None:
        window_s = config.raw_number(self.layout, "watch", "restart_window_s", 300.0)
        quick = int(config.raw_number(self.layout, "watch", "max_restarts", 3))
        pause_s = kept.pause(quick=quick, window_s=window_s)
        kept.not_before = max(kept.not_before, time.monotonic() + least_s)
        if pause_s:
            self.log.warning("%d starts in %g s: the next one in %g s", len(kept.starts), window_s, pause_s)

    def _doing(self) -> str:
        """Return what we say with each beat; ``status`` shows it."""
        kept = self.loop
        if kept.identity is not None:
            before = f"; the one before {kept.last_end}" if kept.last_end else ""
            return f"watches the {kept.name} (pid {kept.identity.pid}){before}"
        left_s = max(0.0, kept.not_before - time.monotonic())
        return f"the {kept.name} {kept.last_end or 'is started'}" + (
            f", next start in {left_s:.0f} s" if left_s else ""
        )

    def _say(self, message: str, *, kind: str) -> None:
        self.log.warning("%s", message)
        self._record(message, kind=kind, level="warning")

    def _complain(self, message: str) -> None:
        if message != self.trouble:
            self.trouble = message
            self.log.error("%s", message)

    def _record(self, message: str, *, kind: str, level: str) -> None:
        try:
            with self._database() as connection:
                events.record(connection, now=time.time(), kind=kind, message=message, level=level)
        except Exception as error:  # a border: the history may be full or locked, the loop must be back
            self.log.error("the history cannot be written: %s", error)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Open the database for a moment; whoever holds it must not keep us from beating."""
        with contextlib.closing(connect(self.layout.database)) as connection:
            wait_at_most(connection, DATABASE_WAIT_S)
            yield connection


def main(folder: Path) -> ExitCode:
    """Keep the loop of one workspace alive."""
    bell = Bell()
    bell.ring_on_signals()
    beat = Beat()
    beat.say("starts", at=attempts.boot_time())
    try:
        layout = workspace.open_workspace(folder)
        lease.require_ours(layout)
        lock = files.Lock(layout.watchdog_lock)
        if not lock.acquire(holder=holder(time.time())):
            return ExitCode.BUSY
        log = open_log("watchdog", layout.log("watchdog"))
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    loop = Kept(
        name="daemon", lock=layout.daemon_lock, log=layout.log("daemon"), start=lambda: guards.start_loop(layout)
    )
    try:
        return Watchdog(layout=layout, log=log, bell=bell, lock=lock, beat=beat, loop=loop).keep()
    except Replaced:
        log.error("the watchdog's lock was deleted, and another watchdog has taken it: this one ends")
        return ExitCode.BUSY
    finally:
        lock.release()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon.watchdog WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
