"""Waiting for what will not heal by itself: told first, given up only after it has been waited for."""

from __future__ import annotations

import dataclasses
import sqlite3
import time

import pytest

from overnight.control import stalling
from overnight.control.stalling import Stalling
from overnight.disk import config
from overnight.disk.layout import Layout
from overnight.domain.picture import Standing, State
from overnight.status import Snapshot, snapshot


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stalling, "time", made)
    return made


def standing(shot: Snapshot, state: State, reason: str) -> Snapshot:
    return dataclasses.replace(shot, standing=Standing(state=state, reason=reason, since=0.0))


def test_a_slow_start_is_no_waiting_and_what_is_waited_for_is_told_before_it_is_given_up(
    layout: Layout, connection: sqlite3.Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "raw_number", lambda layout, section, key, default: {"no_progress_s": 60.0}.get(key, 0))
    seen = snapshot(layout, connection, now=time.time())
    one = Stalling(layout, connection)
    starting, waiting = standing(seen, State.IDLE, "begins"), standing(seen, State.WAITING, "no checkpoint is good")
    for _ in range(30):
        clock.now += 10
        assert (one.look(starting), one.gives_up(starting)) == ("", "")
    clock.now += 10
    assert (one.look(waiting), one.gives_up(waiting)) == ("", "")
    clock.now += 50
    assert (one.look(waiting), one.gives_up(waiting)) == ("no checkpoint is good", "")
    clock.now += 20
    assert one.look(waiting) == "", "told once"
    assert one.gives_up(waiting).endswith("in which nothing moved; still waiting: no checkpoint is good")
