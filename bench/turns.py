"""Two trainings that take turns on one machine: one works for half a second while the other is stopped, and so on.

What else the machine does then reaches both alike, however it comes and goes; both are held on the same cores, since
cores differ by what their neighbours do. Only the time of its own turns counts for a side, by the clock and by the
processor.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

TURN_S = 0.5
START_LIMIT_S = 300.0


@dataclass
class Player:
    """One side: how to find its process, and how far it is."""

    name: str
    find_pid: Callable[[], int | None]
    steps_done: Callable[[], int]
    turns: list[tuple[float, float]] = field(default_factory=list)  # begin and end of each, unix seconds
    cpu_s: float = 0.0
    process: psutil.Process | None = None

    @property
    def active_s(self) -> float:
        """Seconds of all its turns."""
        return sum(end - begin for begin, end in self.turns)

    def steps_in_turns(self, ends: list[float]) -> int:
        """Return how many steps ended inside its turns."""
        return sum(any(begin <= moment <= end + TURN_S / 2 for begin, end in self.turns) for moment in ends)

    def used_s(self) -> float:
        """Return the processor time used so far."""
        assert self.process is not None
        used = self.process.cpu_times()
        return used.user + used.system

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        os.kill(self.process.pid, number)


def take_turns(
    players: list[Player], *, warm_up: int, until: int, cores: list[int], is_broken: Callable[[], bool]
) -> None:
    """Let both work until each has made ``warm_up`` steps, then in turns until one has made ``until``.

    Raises TimeoutError where one does not get going. Afterwards both go on.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while any(player.steps_done() < warm_up for player in players):
        if is_broken() or time.monotonic() > deadline:
            raise TimeoutError(", ".join(f"{player.name}: {player.steps_done()} steps" for player in players))
        time.sleep(0.05)
    for player in players:
        player.process = psutil.Process(player.find_pid())
        for thread in player.process.threads():
            os.sched_setaffinity(thread.id, cores)
        player.send(signal.SIGSTOP)
    try:
        while all(player.steps_done() < until for player in players) and not is_broken():
            for player in players:
                _take_one(player)
    finally:
        for player in players:
            player.send(signal.SIGCONT)


def _take_one(player: Player) -> None:
    before, begin = player.used_s(), time.time()
    player.send(signal.SIGCONT)
    time.sleep(TURN_S)
    player.send(signal.SIGSTOP)
    player.turns.append((begin, time.time()))
    player.cpu_s += player.used_s() - before
