"""Making a version that was wished: ``python -m overnight.daemon.consolidation WORKSPACE``, a process for that alone.

Exit codes: 0 made, or refused for good and told · 75 not now, the wish stands · anything else: it died.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from overnight.database import events, intents
from overnight.database.connection import connect, transaction
from overnight.disk import workspace
from overnight.domain.errors import BusyError, ExitCode, OvernightError
from overnight.publishing import settling
from overnight.publishing.consolidating import consolidate


def main(folder: Path) -> ExitCode:
    """Meet the wish, where one stands."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        layout = workspace.open_workspace(folder)
        connection = connect(layout.database)
    except OvernightError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    standing = intents.standing(connection).get(settling.WISH)
    if standing is None:
        return ExitCode.OK
    token = str(standing.value.get("token", ""))
    try:
        consolidate(
            layout, connection, description=str(standing.value.get("description", "")), now=time.time(), wish=token
        )
    except BusyError:
        return ExitCode.BUSY
    except OvernightError as error:
        told = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
        with transaction(connection):
            events.record(
                connection, now=time.time(), kind="version.failed", level="error", wish=token, what=error.what,
                found=error.found, expected=error.expected, fix=error.fix, exit_code=int(error.exit_code),
                code=error.code, message=f"no version is made: {told}",
            )  # fmt: skip
            intents.withdraw(connection, settling.WISH)
    except KeyboardInterrupt:
        return ExitCode.BUSY
    return ExitCode.OK


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m overnight.daemon.consolidation WORKSPACE")
    raise SystemExit(main(Path(sys.argv[1])))
