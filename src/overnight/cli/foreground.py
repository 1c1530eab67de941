"""``up`` in the foreground: shows the run, passes Ctrl-C on as a wish, and leaves it running where the terminal goes.

The guards live in sessions of their own: no signal of this terminal reaches them. Once INT or TERM: save, then end
everything. Twice: end it at once. HUP, or a terminal that is gone: the run goes on detached.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from overnight import status as picture
from overnight import tui
from overnight.cli import output
from overnight.control import life, progress
from overnight.control.life import Up
from overnight.control.stalling import Stalling
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, ExitCode
from overnight.domain.picture import State
from overnight.status import Snapshot

POLL_S = 0.25
DEAD_S = 15.0
"""So long the daemon may be missing, with nobody to bring it back, before we give up."""

CALM = "Ctrl-C: save, then end everything · overnight status and the other commands work beside this"
ASKED = "ending at the next step border · Ctrl-C once more: end at once"
ASKED_TWICE = "ending at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the foreground ended."""

    exit_code: int
    message: str


@dataclass(slots=True)
class Flags:
    """What the signal handlers note; nothing else happens in them."""

    interrupts: int = 0
    is_hung_up: bool = False

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note a Ctrl-C, a QUIT or a TERM."""
        self.interrupts += 1

    def on_hangup(self, number: int, frame: FrameType | None) -> None:
        """Note that the terminal is gone."""
        self.is_hung_up = True

    def on_harmless(self, number: int, frame: FrameType | None) -> None:
        """Take no notice: unheeded it would end us."""


@dataclass(slots=True)
class _Stay:
    layout: Layout
    connection: sqlite3.Connection
    started: Up
    is_until_idle: bool
    flags: Flags = field(default_factory=Flags)
    asked: int = 0
    asked_at: float = 0.0
    dead_since: float | None = None
    stalling: Stalling | None = None  # where it is to end by itself

    def tick(self, shot: Snapshot) -> Ending | None:
        """Judge one picture: None while there is a reason to stay."""
        if self.flags.is_hung_up:
            return Ending(exit_code=int(ExitCode.OK), message="the terminal is gone: the run goes on detached")
        self._pass_on()
        if not life.holders(self.layout) and (self.asked or "up" not in shot.wishes):
            return self._ended()
        if self.asked:
            return self._too_long()
        if self._is_dead(shot):
            return Ending(exit_code=int(ExitCode.NOT_RUNNING), message=shot.standing.reason)
        if self.is_until_idle and progress.is_all_done(self.layout, self.connection, shot):
            life.down(self.layout, self.connection, now=time.time(), is_quick=False)
            return self._ended()
        return self._stalled(shot)

    def _stalled(self, shot: Snapshot) -> Ending | None:
        """Tell what is waited for; a script that nobody watches does not wait for ever."""
        if self.stalling is None:
            return None
        if news := self.stalling.look(shot):
            output.say(f"waiting: {news}")
        why = self.stalling.gives_up(shot)
        if not why or sys.stdin.isatty():
            return None
        life.down(self.layout, self.connection, now=time.time(), is_quick=False)
        return Ending(exit_code=int(ExitCode.PROBLEM), message=f"{self._ended().message}; {why}")

    def note(self) -> str:
        """Return what the person in front of it should know."""
        return (CALM, ASKED, ASKED_TWICE)[min(self.asked, 2)]

    def _pass_on(self) -> None:
        if min(self.flags.interrupts, 2) > self.asked:
            self.asked = min(self.flags.interrupts, 2)
            self.asked_at = time.monotonic()
            life.ask_down(self.connection, now=time.time(), is_quick=self.asked == 2)

    def _too_long(self) -> Ending | None:
        """End what no guard ends for us; raise BusyError where it cannot be ended."""
        if time.monotonic() - self.asked_at < life.patience_s(self.layout, is_quick=self.asked == 2):
            return None
        life.down(self.layout, self.connection, now=time.time(), is_quick=self.asked == 2)
        return self._ended()

    def _is_dead(self, shot: Snapshot) -> bool:
        if shot.state is not State.DEAD or shot.watchdog is not None:
            self.dead_since = None
            return False
        self.dead_since = self.dead_since if self.dead_since is not None else time.monotonic()
        return time.monotonic() - self.dead_since > DEAD_S

    def _ended(self) -> Ending:
        life.forget(self.connection)
        result = progress.since(self.connection, self.started.since_event)
        if not self.is_until_idle:
            return Ending(exit_code=int(ExitCode.OK), message=f"everything has ended: {result.in_words()}")
        is_good = result.is_all_good and not result.waiting
        return Ending(exit_code=int(ExitCode.OK if is_good else ExitCode.PROBLEM), message=result.in_words())


def stay(layout: Layout, connection: sqlite3.Connection, started: Up, *, is_until_idle: bool, as_json: bool) -> Ending:
    """Show the run until it ends or the user has it ended."""
    staying = _Stay(layout=layout, connection=connection, started=started, is_until_idle=is_until_idle)
    staying.stalling = Stalling(layout, connection) if is_until_idle else None
    with _listening(staying.flags):
        try:
            with tui.JsonView() if as_json else tui.view_for(layout, connection) as view:
                while True:
                    shot = picture.snapshot(layout, connection, now=time.time())
                    view.show(shot, note=staying.note())
                    ending = staying.tick(shot)
                    if ending is not None:
                        return ending
                    _nap(staying.flags)
        except BusyError:
            raise
        except OSError:  # nobody reads stdout any more
            return Ending(exit_code=int(ExitCode.OK), message="the terminal is gone: the run goes on detached")


def _nap(flags: Flags) -> None:
    """Wait for the next look, shorter where a signal comes."""
    seen, until = (flags.interrupts, flags.is_hung_up), time.monotonic() + POLL_S
    while (flags.interrupts, flags.is_hung_up) == seen and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


@contextmanager
def _listening(flags: Flags) -> Iterator[None]:
    wanted = {
        signal.SIGINT: flags.on_interrupt,
        signal.SIGTERM: flags.on_interrupt,
        signal.SIGQUIT: flags.on_interrupt,
        signal.SIGHUP: flags.on_hangup,
        signal.SIGUSR1: flags.on_harmless,
        signal.SIGUSR2: flags.on_harmless,
    }
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
