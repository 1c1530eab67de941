"""Guards that hang where no other guard is left to see it: ``up`` and ``down`` look for themselves, and end them."""

from __future__ import annotations

import signal
import time

from overnight.disk import attempts, files
from overnight.disk.layout import Layout
from overnight.launchers import beats, processes

POLL_S = 0.2
LOOK_S = 3.0
"""A guard that beats at least once a second and does not move for so long, while it is looked at, hangs."""


class Looker:
    """Looks at watchdog and daemon again and again; kills, by its identity, what hangs."""

    def __init__(self, layout: Layout, *, limit_s: float) -> None:
        self.limit_s = limit_s
        self.killed: list[str] = []
        self._locks = {"watchdog": layout.watchdog_lock, "daemon": layout.daemon_lock}
        self._ears: dict[str, beats.Ear] = {}

    def look(self) -> None:
        """Look once at each."""
        for name, lock in self._locks.items():
            identity = processes.identity_of(files.lock_holder(lock))
            ear = self._ears.get(name)
            if ear is not None and ear.identity != identity:
                ear.close()
                del self._ears[name]
            if identity is None:
                continue
            ear = self._ears.setdefault(name, beats.Ear(identity, longest_s=2 * POLL_S))
            verdict = ear.judge(at=attempts.boot_time(), limit_s=self.limit_s)
            if verdict is not None and verdict.is_hung and processes.send(identity, signal.SIGKILL):
                told = f"the {name} (pid {identity.pid}) is killed: {verdict.reason}"
                self.killed += [told] if told not in self.killed else []

    def is_anything_quiet(self, *, limit_s: float) -> bool:
        """Return whether the last beat of one of them is older than a limit, or one is stopped."""
        quiet = False
        for lock in self._locks.values():
            identity = processes.identity_of(files.lock_holder(lock))
            activity = processes.activity(identity) if identity is not None else None
            heard = beats.hear(identity) if identity is not None else None
            quiet |= activity is not None and activity.state == "T"
            quiet |= heard is not None and attempts.boot_time() - heard.at > limit_s
        return quiet

    def close(self) -> None:
        """Listen no more."""
        for ear in self._ears.values():
            ear.close()


def end_hung(layout: Layout, *, limit_s: float) -> list[str]:
    """End guards that have not beaten for long and do not move while they are looked at; return what was done."""
    looker = Looker(layout, limit_s=LOOK_S)
    deadline = time.monotonic() + 2 * LOOK_S
    try:
        while looker.is_anything_quiet(limit_s=limit_s) and time.monotonic() < deadline:
            looker.look()
            time.sleep(POLL_S)
    finally:
        looker.close()
    return looker.killed
