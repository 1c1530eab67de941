"""The watchdog: ``python -m overnight.daemon.watchdog WORKSPACE``. It keeps the loop alive and never gives up.

It starts the loop and waits on it; a loop that somebody else started is waited on as well. It ends when the loop ended
on purpose, or when nobody wants it to run. It imports little: it is to stay small for weeks.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from overnight.daemon.locks import holder
from overnight.daemon.waiting import Bell
from overnight.database import events, intents
from overnight.database.connection import connect
from overnight.disk import config, files, workspace
from overnight.disk.layout import Layout
from overnight.disk.logs import open_log
from overnight.domain.errors import ExitCode, OvernightError
from overnight.launchers import guards, processes
from overnight.launchers.base import LaunchError
from overnight.launchers.processes import Identity

LOOK_S = 1.0
LONGEST_PAUSE_S = 60.0


class Replaced(Exception):
    """Another watchdog has taken our place; it looks after the loop."""


@dataclass(slots=True)
class Watchdog:
    """One watchdog and what it remembers."""

    layout: Layout
    log: logging.Logger
    bell: Bell
    lock: files.Lock
    passed_on: int = 0
    child: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)  # monotonic seconds

    def keep(self) -> ExitCode:
        """Keep the loop alive until it ends on purpose."""
        while True:
            other = self._other_loop()
            if other is not None:
                self._wait_for(other)
                code: int | None = None
                why = f"the daemon (pid {other.pid}), started by somebody else, is gone"
            elif self.bell.signals or not self._is_wanted():
                self.log.info("nobody wants the daemon to run: the watchdog ends")
                return ExitCode.OK
            else:
                code = self._run()
                why = f"the daemon ended with {_shown(code)}"
                if code == ExitCode.OK:
                    self.log.info("the daemon ended on purpose: the watchdog ends")
                    return ExitCode.OK
            if not self.layout.root.is_dir():
                self.log.error("the workspace is gone: the watchdog ends")
                return ExitCode.USAGE
            if code == ExitCode.BUSY:
                self.bell.wait(LOOK_S)  # another loop was quicker, and is about to say who it is
            elif not self.bell.signals and self._is_wanted():
                self._say(f"{why}; it is started again", kind="daemon.restarted")
                self._pause()

    def _other_loop(self) -> Identity | None:
        """Return the loop that runs without being our child."""
        seen = files.lock_holder(self.layout.daemon_lock)
        pid = seen.get("pid") if seen is not None else None
        return processes.identify(pid) if isinstance(pid, int) else None

    def _run(self) -> int | None:
        """Start the loop and wait for its end; return its exit code (negative: a signal), None without one."""
        self.starts.append(time.monotonic())
        try:
            self.child = guards.start_loop(self.layout)
        except LaunchError as error:
            self.log.error("%s", error)
            return None
        self.log.info("the daemon runs as pid %d", self.child.pid)
        identity = processes.identify(self.child.pid)
        descriptor = processes.open_process(identity) if identity is not None else None
        while (code := self.child.poll()) is None:
            self._keep_lock()
            self._pass_on(identity)
            self.bell.wait(LOOK_S, also=descriptor)
        if descriptor is not None:
            processes.close(descriptor)
        self.child = None
        return code

    def _wait_for(self, other: Identity) -> None:
        """Wait until a loop that is not our child ends."""
        self.log.info("the daemon runs already, as pid %d", other.pid)
        descriptor = processes.open_process(other)
        while processes.is_alive(other):
            self._keep_lock()
            self._pass_on(other)
            self.bell.wait(LOOK_S, also=descriptor)
        if descriptor is not None:
            processes.close(descriptor)

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

    def _pass_on(self, loop: Identity | None) -> None:
        """Tell the loop what we were told: each signal once."""
        if loop is not None and self.passed_on < self.bell.signals:
            self.passed_on += 1
            processes.send(loop, signal.SIGTERM)

    def _is_wanted(self) -> bool:
        """Return whether the daemon should run; where nobody can tell, it should."""
        try:
            connection = connect(self.layout.database)
        except OvernightError as error:
            self.log.error("%s", error)
            return self.layout.root.is_dir()
        try:
            return "up" in intents.standing(connection)
        finally:
            connection.close()

    def _pause(self) -> None:
        """Wait before the next start: not at all for the first few, then longer and longer."""
        window_s = config.raw_number(self.layout, "watch", "restart_window_s", 300.0)
        quick = int(config.raw_number(self.layout, "watch", "max_restarts", 3))
        now = time.monotonic()
        self.starts = [at for at in self.starts if now - at < window_s]
        surplus = len(self.starts) - quick
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(surplus - 1, 16)) if surplus > 0 else 0.0
        if pause_s:
            self.log.warning("%d starts in %g s: the next one in %g s", len(self.starts), window_s, pause_s)
        deadline = now + pause_s
        while (left := deadline - time.monotonic()) > 0 and not self.bell.signals and self._is_wanted():
            self.bell.wait(min(left, LOOK_S))

    def _say(self, message: str, *, kind: str) -> None:
        self.log.warning("%s", message)
        try:
            connection = connect(self.layout.database)
        except OvernightError as error:
            self.log.error("%s", error)
            return
        try:
            events.record(connection, now=time.time(), kind=kind, message=message, level="warning")
        except Exception as error:  # a border: the history may be full or locked, the loop must be back
            self.log.error("the history cannot be written: %s", error)
        finally:
            connection.close()


def _shown(code: int | None) -> str:
    if code is None:
        return "no start"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def main(folder: Path) -> ExitCode:
    """Keep the loop of one workspace alive."""
    bell = Bell()
    bell.ring_on_signals()
    try:
        layout = workspace.open_workspace(folder)
        lock = files.Lock(layout.watchdog_lock)
        if not lock.acquire(holder=holder(time.time())):
            return ExitCode.BUSY
        log = open_log("watchdog", layout.log("watchdog"))
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        return Watchdog(layout=layout, log=log, bell=bell, lock=lock).keep()
    except Replaced:
        log.error("the watchdog's lock was deleted, and another watchdog has taken it: this one ends")
        return ExitCode.BUSY
    finally:
        lock.release()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon.watchdog WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
