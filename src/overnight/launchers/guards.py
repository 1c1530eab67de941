"""Starting our own long-lived processes: the watchdog, the loop, and short errands of the loop."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from overnight.launchers.local import launch_error, python, require_interpreter


class Places(Protocol):
    """What is needed of a workspace's layout."""

    @property
    def root(self) -> Path:
        """The workspace."""
        ...

    @property
    def logs(self) -> Path:
        """Its logs."""
        ...


def start_watchdog(places: Places) -> int:
    """Start a detached watchdog, which starts the loop; return its pid. Raises LaunchError.

    A second one ends by itself: only one can hold the watchdog's lock.
    """
    return start_watchdog_process(places).pid


def start_watchdog_process(places: Places) -> subprocess.Popen[bytes]:
    """Start a detached watchdog; the caller reaps it. Raises LaunchError."""
    return _start("overnight.daemon.watchdog", places, log=places.logs / "watchdog.log", what="The watchdog")


def start_loop(places: Places) -> subprocess.Popen[bytes]:
    """Start the daemon loop in a session of its own; the caller waits on it. Raises LaunchError."""
    return _start("overnight.daemon", places, log=places.logs / "daemon.log", what="The daemon")


def start_intake(places: Places) -> subprocess.Popen[bytes]:
    """Start the short-lived process that judges claimed files; the caller polls it. Raises LaunchError."""
    return _start("overnight.daemon.admission", places, log=places.logs / "daemon.log", what="The intake")


def start_backup(places: Places) -> subprocess.Popen[bytes]:
    """Start the short-lived process that makes copies in the second place; the caller polls it. Raises LaunchError."""
    return _start("overnight.daemon.copying", places, log=places.logs / "daemon.log", what="The backup")


def start_consolidation(places: Places) -> subprocess.Popen[bytes]:
    """Start the process that makes a version which was wished; the caller polls it. Raises LaunchError."""
    return _start("overnight.daemon.consolidation", places, log=places.logs / "daemon.log", what="The consolidation")


def _start(module: str, places: Places, *, log: Path, what: str) -> subprocess.Popen[bytes]:
    try:
        require_interpreter()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            return subprocess.Popen(
                [*python(module), str(places.root)],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                cwd=places.root,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise launch_error(error, what=what) from error
