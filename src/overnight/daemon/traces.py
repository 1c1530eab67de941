"""What can be seen of a guard that hangs, before it is killed: its threads in the kernel, and where Python stands."""

from __future__ import annotations

from overnight.domain.guard import STOPPED
from overnight.launchers import processes, witness
from overnight.launchers.processes import Identity


def of_guard(identity: Identity) -> list[str]:
    """Return lines for people; a guard tells its stacks (within a second) even where its main thread is stuck."""
    lines = processes.describe(identity)
    activity, log = processes.activity(identity), processes.error_output(identity)
    if activity is None or activity.state in (STOPPED, "t") or log is None:
        return lines  # a stopped process answers nothing
    return lines + witness.own_word(identity, log).splitlines()
