"""What the kernel says of a process at one look, and what of the time between two looks counts against it.

A process is blamed for time that it could have used. It could not use the time in which it waited for a processor or
for the disk, in which it was stopped, or in which the loop that watches it did not run itself and saw nothing. While it
reads or writes, however slowly, it does something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LOST_S = 2.0
"""After a longer gap between two looks it was the loop that stood still: a tick comes every 0.2 s."""

MOVED_BYTES = 64 << 10
"""Who reads or writes so much between two looks loads, downloads or saves: slowly perhaps, but it moves."""

STOPPED, TRACED, DISK, RUNNABLE = "T", "t", "D", "R"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One look at a process; times grow from look to look."""

    state: str  # the kernel's letter for the main thread
    cpu_s: float  # processor time of all threads
    main: int  # the main thread
    has_children: bool = False  # it may wait for a compiler that it started
    io_bytes: int = 0  # read and written, from wherever to wherever; 0 where that was not looked at
    waited_s: Mapping[int, float] = field(default_factory=dict)  # by thread: ready to run, and not let run


@dataclass(frozen=True, slots=True, kw_only=True)
class Stillness:
    """How long nothing has moved, counted in several ways."""

    wall_s: float = 0.0  # as the loop saw it pass
    watched_s: float = 0.0  # of it: the main thread was not waiting for a processor; held against the ceilings
    charged_s: float = 0.0  # of it: it could have used the time, and did not; held against what is learnt
    burned_s: float = 0.0  # processor time of all threads; all the time while it has children
    stopped_s: float = 0.0  # without a break, up to now
    lost_s: float = 0.0  # the loop did not run
    state: str = ""  # at the last look; "" where nobody can tell


def after(still: Stillness, before: Vitals | None, now: Vitals | None, *, passed_s: float) -> Stillness:
    """Return the stillness after another look, so many seconds after the last one."""
    passed_s = max(0.0, passed_s)
    own_s = max(0.0, now.cpu_s - before.cpu_s) if now is not None and before is not None else 0.0
    burned_s = max(own_s, passed_s) if now is not None and now.has_children else own_s
    state = now.state if now is not None else ""
    if passed_s > LOST_S:  # what moved meanwhile is not known, and waking up takes a moment: what is learnt begins anew
        return Stillness(
            wall_s=still.wall_s + LOST_S,
            watched_s=still.watched_s + (0.0 if state == STOPPED else LOST_S),
            lost_s=still.lost_s + passed_s - LOST_S,
            state=state,
        )
    waited_s, main_waited_s = _waited(before, now, passed_s=passed_s, burned_s=own_s)
    used_s = min(passed_s, own_s)  # what ran was not waiting, whatever the books say
    is_held = state in (STOPPED, TRACED, DISK) or _moves_bytes(before, now)
    is_stopped = state == STOPPED and own_s == 0.0
    return Stillness(
        wall_s=still.wall_s + passed_s,
        watched_s=still.watched_s + max(used_s, passed_s - main_waited_s),
        charged_s=still.charged_s + (0.0 if is_held else max(used_s, passed_s - waited_s)),
        burned_s=still.burned_s + burned_s,
        stopped_s=still.stopped_s + passed_s if is_stopped else 0.0,
        lost_s=still.lost_s,
        state=state,
    )


def _moves_bytes(before: Vitals | None, now: Vitals | None) -> bool:
    return before is not None and now is not None and 0 < before.io_bytes <= now.io_bytes - MOVED_BYTES


def _waited(before: Vitals | None, now: Vitals | None, *, passed_s: float, burned_s: float) -> tuple[float, float]:
    """Return how long any thread, and how long the main thread, was ready to run and not let run.

    The kernel adds a wait to its books when it is over. A main thread found ready that used less than the time that
    passed is in such a wait.
    """
    if before is None or now is None:
        return 0.0, 0.0
    waits = {thread: total - before.waited_s.get(thread, total) for thread, total in now.waited_s.items()}
    waiting_s = max(0.0, passed_s - burned_s) if now.state == RUNNABLE else 0.0
    main_s = min(passed_s, max(waits.get(now.main, 0.0), waiting_s))
    return min(passed_s, max([main_s, *waits.values()])), main_s
