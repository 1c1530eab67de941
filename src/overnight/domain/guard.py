"""Whether a guard is alive or hangs: its beat must move, in time that was really watched.

What is not the guard's fault does not count: time in which nobody looked (the looker was stopped or starved, the
machine slept), time in which it stood in line for a processor, and time in which it waited inside the kernel, as in a
slow fsync, or was held by a debugger.
"""

from __future__ import annotations

from dataclasses import dataclass

EXCUSED = frozenset("Dt")
"""Kernel states of a process that cannot move and is not to blame: waiting for a disk or frozen, or traced."""

STOPPED = "T"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a guard saw."""

    at: float  # boot seconds
    count: int | None  # of its beats; None where it has not begun to beat, or its beat cannot be read
    doing: str = ""  # what it said with its last beat
    state: str = "S"  # the kernel's letter
    starved_s: float = 0.0  # for how long it has stood in line for a processor in all its life


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """For how long a guard has not moved while it was watched."""

    look: Look  # the last one
    unmoved_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement on a guard, with a reason fit for the user."""

    is_hung: bool
    reason: str


def listen(before: Silence | None, look: Look, *, longest_s: float) -> Silence:
    """Return the silence after one more look; between two looks at most ``longest_s`` count."""
    if before is None or before.look.count != look.count:
        return Silence(look=look)
    counted_s = min(look.at - before.look.at, longest_s) - max(0.0, look.starved_s - before.look.starved_s)
    is_excused = look.state in EXCUSED or (look.count is None and look.state != STOPPED)
    return Silence(look=look, unmoved_s=before.unmoved_s + (0.0 if is_excused else max(0.0, counted_s)))


def judge(silence: Silence, *, limit_s: float) -> Verdict:
    """Judge a guard by its silence."""
    doing = f" in '{silence.look.doing}'" if silence.look.doing else ""
    if silence.unmoved_s <= limit_s:
        return Verdict(is_hung=False, reason=f"moved {silence.unmoved_s:.0f} s ago{doing}")
    how = "it is stopped (by a signal)" if silence.look.state == STOPPED else f"it hangs{doing}"
    return Verdict(is_hung=True, reason=f"{how}: nothing moved for {silence.unmoved_s:.0f} s (limit {limit_s:g} s)")
