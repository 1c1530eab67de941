"""The daemon: ``python -m overnight.daemon WORKSPACE``.

Exit codes: 0 ended on purpose · 2 no workspace · 73 the disk refuses, or the workspace went away · 75 another daemon
holds it · 1 anything else; the watchdog starts it again after the last one.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from overnight.daemon import loop, settings
from overnight.daemon.context import Context, Moment
from overnight.daemon.errands import Errands
from overnight.daemon.locks import take_locks
from overnight.daemon.recover import recover
from overnight.daemon.waiting import Bell
from overnight.database.connection import connect, wait_at_most
from overnight.disk import attempts, workspace
from overnight.disk.logs import open_log
from overnight.domain.errors import ExitCode, OvernightError
from overnight.launchers.beats import Beat
from overnight.launchers.choice import launcher_of

DATABASE_WAIT_S = 5.0
"""A step that finds the database held by somebody else for longer is tried again: the loop must keep moving."""


def main(folder: Path) -> ExitCode:
    """Run the loop of one workspace until it is to end."""
    bell = Bell()
    bell.ring_on_signals()
    beat = Beat()
    beat.say("starts", at=attempts.boot_time())
    try:
        layout = workspace.open_workspace(folder)
        now = Moment(unix=time.time(), boot=attempts.boot_time())
        locks = take_locks(layout, now=now.unix)
        log = open_log("daemon", layout.log("daemon"))
        connection = connect(layout.database)
        wait_at_most(connection, DATABASE_WAIT_S)
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    context = Context(
        layout=layout,
        connection=connection,
        launcher_of=launcher_of,
        log=log,
        limits=settings.fallback(),
        bell=bell,
        beat=beat,
        errands=Errands(wake=bell.ring),
        started_at=now.unix,
        locks=locks,
    )
    _begin(context, now)
    loop.run(context)
    context.close()
    logging.shutdown()
    return ExitCode.CANNOT_WRITE if context.lost_at is not None else ExitCode.OK


def _begin(context: Context, now: Moment) -> None:
    try:
        context.record("the daemon has started", kind="daemon.start", at=now.unix)
        recover(context, now)
    except Exception as error:  # the same border as a tick's step: what could not be mended, the ticks tell
        context.log.exception("the recovery at start failed: %s", error)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
