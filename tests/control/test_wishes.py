"""Pause, resume and stop: the last word counts, saying it twice changes nothing, no word outlives its meaning."""

from __future__ import annotations

import sqlite3
import time

import pytest

from overnight.control import wishes
from overnight.database import events, intents
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError


def test_pause_is_kept_with_its_first_time_until_resume(layout: Layout, connection: sqlite3.Connection) -> None:
    assert wishes.pause(layout, connection, now=10.0).is_changed
    again = wishes.pause(layout, connection, now=20.0)
    assert not again.is_changed
    assert "paused already, since 1970-01-01T00:00:10Z" in again.message
    assert intents.standing(connection)["paused"].at == 10.0
    assert wishes.resume(layout, connection, now=30.0).is_changed
    assert "paused" not in intents.standing(connection)


def test_resume_without_a_pause_says_so(layout: Layout, connection: sqlite3.Connection) -> None:
    answer = wishes.resume(layout, connection, now=10.0)
    assert not answer.is_changed
    assert "nothing to resume" in answer.message
    assert [event["kind"] for event in events.newest(connection)] == ["workspace.made"]


def test_resume_withdraws_stop_too(layout: Layout, connection: sqlite3.Connection) -> None:
    wishes.stop(layout, connection, now=1.0)
    wishes.pause(layout, connection, now=2.0)
    wishes.resume(layout, connection, now=3.0)
    assert intents.standing(connection) == {}


def test_without_a_daemon_a_pause_holds_at_once(layout: Layout, connection: sqlite3.Connection) -> None:
    wishes.pause(layout, connection, now=1.0)
    started = time.monotonic()
    wishes.wait_until_free(layout, connection)
    assert time.monotonic() - started < 20


def test_with_a_daemon_the_pause_waits_for_its_word(
    layout: Layout, connection: sqlite3.Connection, daemon: files.Lock
) -> None:
    wishes.pause(layout, connection, now=1.0)
    files.write_json_atomically(layout.daemon_state, {"state": "paused"})
    started = time.monotonic()
    wishes.wait_until_free(layout, connection)
    assert time.monotonic() - started < 20


def test_a_trainer_that_does_not_leave_is_told_and_the_wish_stays(
    layout: Layout, connection: sqlite3.Connection, daemon: files.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = files.Lock(layout.model_lock)
    assert trainer.acquire(holder={"pid": 88})
    monkeypatch.setattr(wishes, "PAUSE_S", -29.7)
    wishes.pause(layout, connection, now=1.0)
    with pytest.raises(BusyError, match="has not left yet") as caught:
        wishes.wait_until_free(layout, connection)
    trainer.release()
    assert "pid 88" in str(caught.value)
    assert "paused" in intents.standing(connection)


def test_stop_says_what_it_means_without_a_daemon(layout: Layout, connection: sqlite3.Connection) -> None:
    assert "no daemon runs" in wishes.stop(layout, connection, now=1.0).message
    assert not wishes.stop(layout, connection, now=2.0).is_changed
