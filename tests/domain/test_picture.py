"""Lengths of time and moments, as people read them."""

from __future__ import annotations

import pytest

from overnight.domain.attempt import Attempt, AttemptState, Heartbeat, Phase
from overnight.domain.picture import Facts, Told, age, decide, iso
from overnight.domain.printable import shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (8, "8 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (400_000, "4 days"),
    ],
)
def test_a_length_of_time_has_its_natural_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_moment_is_utc() -> None:
    assert iso(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert iso(None) is None


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain.jsonl", "plain.jsonl"),
        ("größe-日本.jsonl", "größe-日本.jsonl"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("rtl\u202egpj", "rtl\\u202egpj"),
        ("\udcff", "\\udcff"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(text: str, safe: str) -> None:
    assert shown(text) == safe


def test_a_trainer_that_moves_but_slowly_is_called_slow() -> None:
    beat = Heartbeat(
        attempt="000001-01", pid=1, phase=Phase.TRAINING, progress=9, step=9, total=20, loss=None, eval_loss=None,
        learning_rate=None, epoch=None, tokens_per_second=None, eta_s=None, checkpoint=None, phase_since=0.0,
        beat_at=1.0, written_at=1.0, boot_id="",
    )  # fmt: skip
    attempt = Attempt(
        id="000001-01", job=1, number=1, state=AttemptState.RUNNING, outcome=None, kind=None, handle="x", reason="",
        started_at=0.0, ended_at=None, exit_code=None, signal=None, first_step=0, last_step=None,
    )  # fmt: skip

    def reason(slow: str) -> str:
        told = Told(state="training", reason="", since=0.0, quiet_s=0.0, slow=slow)
        facts = Facts(
            up=None, down=None, paused=None, stopped=None, daemon_alive=True, watchdog_pid=None, told=told,
            attempt=attempt, heartbeat=beat, trainer_alive=True, job_file="a.jsonl", step=9, last_sign=None, queued=0,
            pause_end=None,
        )  # fmt: skip
        return decide(facts, now=1.0).reason

    assert reason("") == "training a.jsonl"
    assert reason("slow: a step takes 1 s") == "training a.jsonl; slow: a step takes 1 s"
