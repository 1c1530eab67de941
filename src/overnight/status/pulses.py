"""How alive the guards are: what each says with its beat, and for how long it has said nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from overnight.disk import attempts
from overnight.domain import picture
from overnight.domain.guard import EXCUSED, STOPPED
from overnight.launchers import beats, processes

NOTICED_S = 3.0
"""A stopped guard is told of after so long; guards beat at least once a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """One guard as it can be seen from outside."""

    doing: str
    quiet_s: float  # since its last beat
    state: str  # the kernel's letter

    def silence(self, limit_s: float) -> str:
        """Return in words that it does not move, "" where it does."""
        if self.state == STOPPED and self.quiet_s > NOTICED_S:
            return f"stopped by a signal, silent for {picture.age(self.quiet_s)}"
        if self.quiet_s <= limit_s:
            return ""
        where = "frozen or waiting in the kernel, " if self.state in EXCUSED else ""
        return f"{where}silent for {picture.age(self.quiet_s)}"


def take(holder: dict[str, Any] | None) -> Pulse | None:
    """Return the pulse of whoever holds a guard's lock, None where there is none that we may read."""
    pid = holder.get("pid") if holder is not None else None
    if not isinstance(pid, int):
        return None
    with contextlib.suppress(OSError):  # out of file handles: nothing is known then
        identity = processes.identify(pid)
        activity = processes.activity(identity) if identity is not None else None
        heard = beats.hear(identity) if identity is not None else None
        if activity is not None and heard is not None:
            quiet_s = max(0.0, attempts.boot_time() - heard.at)
            return Pulse(doing=heard.doing, quiet_s=quiet_s, state=activity.state)
    return None
