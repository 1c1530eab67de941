"""Fault points for drills and tests: inert unless the environment variable OVERNIGHT_FAULT arms one.

``OVERNIGHT_FAULT=SITE:COUNT:ACTION[:once]``, for example ``step:7:kill``. Sites: ``load`` (before torch is imported),
``step`` (job step about to be made), ``eval`` (batch of an evaluation, counted over the run), ``judge`` (batch of the
judging, counted over the run), ``save`` (a checkpoint is
written and not yet committed, counted over the run), ``rows`` (a forward pass of so many rows has been made), ``row``
(a forward pass that holds the row of that number), ``report`` (before the last word), ``merge`` (a tensor of a merge is
about to be written, counted), ``merged`` (a merge is written and not yet read again). With ``once`` only the first
attempt of a job meets it. The action ``held`` waits until the file that OVERNIGHT_FAULT_RELEASE names is there.

The simulated trainer knows ``step``. Of a spare trainer: ``spare_load`` (before it loads), ``spare_order`` (asked to
fork), ``spare_forked`` (before it says so), ``spare_go`` (before it passes the word on).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

VARIABLE = "OVERNIGHT_FAULT"
RELEASE = "OVERNIGHT_FAULT_RELEASE"
SLEEP_S = 3600.0
SLOW_S = 1.5
LEAK_BYTES = 32 << 20


class PlannedFault(RuntimeError):
    """The failure that a drill asked for."""


def _raise(error: BaseException) -> NoReturn:
    raise error


def _never_return() -> None:
    sum(range(1 << 62))  # in native code, with the interpreter's lock held: no handler of a signal ever runs


def _device_memory() -> Exception:
    """Return torch's own error where torch is loaded."""
    torch = sys.modules.get("torch")
    kind = RuntimeError if torch is None else torch.OutOfMemoryError
    return kind("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 2.00 GiB")


def _spoil() -> None:
    raise ValueError("the actions 'nan' and 'perturb' need a site that has numbers to spoil")


_LEAKED: list[bytearray] = []


def leak() -> None:
    """Lose some memory for good; from the armed step on this is done at each one."""
    _LEAKED.append(bytearray(b"x") * LEAK_BYTES)


def deaf() -> None:
    """Wait in C, the interpreter's lock held and every signal blocked, as a call into a broken driver does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(int(SLEEP_S))


def held(beat: Callable[[], None] = lambda: None) -> None:
    """Wait until a file is there: what the one who waits outside wants to see lasts as long as he needs."""
    deadline = time.monotonic() + SLEEP_S
    while not os.path.exists(os.environ[RELEASE]) and time.monotonic() < deadline:
        beat()
        time.sleep(0.02)


ACTIONS: dict[str, Callable[[], None]] = {
    "deaf": deaf,
    "leak": leak,
    "held": held,
    "exit0": lambda: os._exit(0),
    "kill": lambda: signal.raise_signal(signal.SIGKILL),
    "term": lambda: signal.raise_signal(signal.SIGTERM),
    "segv": lambda: signal.raise_signal(signal.SIGSEGV),
    "sleep": lambda: time.sleep(SLEEP_S),
    "native": _never_return,
    "slow": lambda: time.sleep(SLOW_S),
    "stop": lambda: signal.raise_signal(signal.SIGSTOP),
    "raise": lambda: _raise(PlannedFault("a planned fault")),
    "system_exit": lambda: _raise(SystemExit(0)),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "memory": lambda: _raise(MemoryError()),
    "cuda_oom": lambda: _raise(_device_memory()),
    "device_lost": lambda: _raise(RuntimeError("CUDA error: unspecified launch failure")),
    "import": lambda: _raise(ImportError("No module named 'planned'")),
    "disk_full": lambda: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "planned")),
}


class Faults:
    """The fault that is armed, if any."""

    def __init__(self, armed: str | None, *, is_first_attempt: bool = True) -> None:
        self.site, self.count, self.action = "", 0, ""
        if armed:
            site, count, action, *rest = armed.split(":")
            if rest != ["once"] or is_first_attempt:
                self.site, self.count, self.action = site, int(count), action
        self._seen = 0

    def reach(
        self,
        site: str,
        count: int | None = None,
        *,
        spoil: Callable[[], None] = _spoil,
        perturb: Callable[[], None] = _spoil,
    ) -> None:
        """Pass a fault point; it strikes where site and count are those armed. Without ``count`` passes are counted."""
        if site != self.site:
            return
        if count is None:
            self._seen += 1
            count = self._seen
        if self.action == "leak" and count > self.count:
            leak()
        if count != self.count:
            return
        if self.action == "nan":
            spoil()
        elif self.action == "perturb":
            perturb()
        else:
            ACTIONS[self.action]()


def from_environment(attempt: str) -> Faults:
    """Return what the environment arms for an attempt."""
    return Faults(os.environ.get(VARIABLE), is_first_attempt=attempt.endswith("-01"))
