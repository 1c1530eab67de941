"""A save that waits for the disk: at the step border, everything in memory, until the disk takes it.

Before anything is written, what the save needs is held against what the disk has. What fails all the same (an error of
the device, a quota, a limit on file sizes: no figure tells of those) is written anew into new files after a pause: what
an fsync refused is not saved. So a disk that is full for an hour costs an hour, and not a step.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from overnight.disk import files, needs
from overnight.disk.layout import Layout
from overnight.domain.attempt import FailureKind
from overnight.domain.errors import DiskError
from overnight.domain.room import Need
from overnight.trainer import failures
from overnight.trainer.wishes import AskedToLeave

LONGEST_WAIT_S = 24 * 3600.0
"""After so long the device is given back: the job then waits without it, and goes on from its last checkpoint."""

REFUSED = re.compile(r"(?:code: |os error )(?:5|27|28|30|122)\b|Input/output error|Read-only file system")
"""What libraries in other languages say of a disk that refuses a write."""

LOOK_S = 0.5
LONGEST_PAUSE_S = 10.0
TRIES_WHEN_ASKED = 2
"""So often a save is tried that the disk refuses, when somebody asks to leave."""


class LeftUnsaved(AskedToLeave):
    """Asked to leave while the disk takes no checkpoint."""


class Patience:
    """How long one attempt waits for the disk, and how it says so."""

    def __init__(
        self, workspace: Path, *, limit_s: float, asked: Callable[[], str | None], say: Callable[[str], None]
    ) -> None:
        self.places = needs.places_of(Layout(workspace))
        self.limit_s = limit_s
        self.asked = asked  # why the trainer shall leave, None where nobody asks
        self.say = say  # what is waited for; "" when it is over

    def save(self, write: Callable[[], None], need: Need | None, *, clear: Callable[[], None]) -> None:
        """Save by ``write`` as soon as the disk takes it; ``clear`` removes what a failed try has left.

        Raises DiskError where it took too long, LeftUnsaved where somebody does not want to wait.
        """
        began, tries, waited = time.monotonic(), 0, False
        while True:
            why, error = needs.trouble(self.places, need), None
            if why is None:
                try:
                    write()
                except Exception as failure:
                    clear()
                    if not is_of_disk(failure, self.places):
                        raise
                    why, error, tries = self._words(failure), failure, tries + 1
                else:
                    break
            waited = True
            self._require_patience(why, error, tries, began)
            self._wait(why, min(LONGEST_PAUSE_S, 2.0 ** min(tries - 1, 8)) if error is not None else LOOK_S)
        if waited:
            self.say("")

    def _require_patience(self, why: str, error: Exception | None, tries: int, began: float) -> None:
        if time.monotonic() - began >= self.limit_s:
            if error is not None:
                raise error
            raise DiskError(
                "The next checkpoint does not fit on the disk",
                found=why,
                expected="room for one more checkpoint",
                fix="free space; work goes on by itself then",
            )
        asked = self.asked()
        if asked is not None and (error is None or tries >= TRIES_WHEN_ASKED):
            raise LeftUnsaved(f"left without a checkpoint of this step, the disk takes none: {why}; {asked}") from error

    def _words(self, error: Exception) -> str:
        if isinstance(error, OSError):
            error = files.disk_error(error, error.filename or self.places["current_model"])
        if isinstance(error, DiskError):
            return error.found or error.what
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

    def _wait(self, why: str, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while True:
            self.say(f"waiting for the disk to take a checkpoint: {why}")
            left_s = until - time.monotonic()
            if left_s <= 0 or self.asked() is not None:
                return
            time.sleep(min(LOOK_S, left_s))


def is_of_disk(error: Exception, places: dict[str, Path]) -> bool:
    """Return whether the disk is what a save failed of: by the error, or by what the disk says of itself."""
    if failures.judge(error).kind is FailureKind.DISK_FULL or REFUSED.search(str(error)):
        return True
    if not isinstance(error, (OSError, RuntimeError)):
        return False
    return needs.trouble(places, None) is not None
