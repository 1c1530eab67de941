"""Crashes as they are told and kept, and what is struck out of them."""

from __future__ import annotations

import signal

import pytest

from overnight.domain.attempt import Attempt, AttemptState, FailureKind, Outcome
from overnight.domain.crash import ALIKE, Kept, of_attempt, signal_name, surplus
from overnight.domain.facts import Facts
from overnight.domain.remedies import REMEDIES, Action
from overnight.domain.secrets import STRUCK, without_secrets


def ended(outcome: Outcome, kind: FailureKind | None, number: int | None = None) -> Attempt:
    return Attempt(
        id="000003-02", job=3, number=2, state=AttemptState.ENDED, outcome=outcome, kind=kind, handle="h",
        reason="why", started_at=5.0, ended_at=9.0, exit_code=None, signal=number, first_step=5, last_step=7,
    )  # fmt: skip


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_crash_carries_the_remedy_and_action_of_its_kind(kind: FailureKind) -> None:
    told = of_attempt(ended(Outcome.CRASHED, kind, signal.SIGKILL), None, Facts()).to_json()
    assert (told["kind"], told["remedy"], told["action"]) == (kind, REMEDIES[kind].words, REMEDIES[kind].action)
    assert (told["id"], told["at"], told["step"]) == ("000003-02", "1970-01-01T00:00:09Z", 7)
    assert told["signal"] == "SIGKILL"


def test_a_loss_without_a_trace_is_told_as_a_kill() -> None:
    told = of_attempt(ended(Outcome.LOST, None), None, Facts()).to_json()
    assert (told["kind"], told["outcome"], told["action"]) == ("killed_by_signal", "lost", Action.RETRY_AT_ONCE)
    assert of_attempt(ended(Outcome.HUNG, None), None, Facts()).kind is FailureKind.HANG


def test_signals_have_names() -> None:
    assert (signal_name(9), signal_name(None), signal_name(63)) == ("SIGKILL", None, "signal 63")


def kept(number: int, likeness: object) -> Kept:
    return Kept(id=f"{number:03d}", at=float(number), likeness=(likeness,))


def test_nothing_goes_while_there_is_room() -> None:
    assert surplus([kept(number, number) for number in range(5)], keep=5) == []


def test_the_oldest_go_first() -> None:
    gone = surplus([kept(number, number) for number in range(8)], keep=5)
    assert [item.id for item in gone] == ["000", "001", "002"]
    assert all(item.reason for item in gone)


def test_a_crash_that_repeats_a_thousand_times_does_not_drive_the_others_out() -> None:
    found = [kept(number, number) for number in range(6)] + [kept(number, "same") for number in range(100, 1100)]
    gone = {item.id for item in surplus(found, keep=10)}
    assert len(gone) == len(found) - 10
    assert not gone & {f"{number:03d}" for number in range(6)}
    assert f"{1099:03d}" not in gone
    assert ALIKE < 10 - 6 + 1


@pytest.mark.parametrize(
    "text",
    [
        "token hf_abcdefghijKLMNOP1234 was refused",
        "HF_TOKEN=hf_x1y2z3a4b5c6d7e8",
        'WANDB_API_KEY="0123456789abcdef0123456789abcdef01234567"',
        "wandb: Currently logged in with 0123456789abcdef0123456789abcdef01234567",
        '{"access_token": "verysecretvalue"}',
        "Authorization: Bearer abc.def.ghi-jkl",
        "https://user:hunter22@example.org/x",
        "AWS AKIAABCDEFGHIJKLMNOP",
        "password: correct-horse",
        "my_api_key = 'sixsixsix'",
    ],
)
def test_a_secret_is_struck_out(text: str) -> None:
    safe = without_secrets(text)
    assert STRUCK in safe
    for secret in (
        "hf_abc",
        "hf_x1",
        "0123456789abcdef",
        "verysecret",
        "abc.def",
        "hunter22",
        "AKIAABC",
        "horse",
        "six",
    ):
        assert secret not in safe


@pytest.mark.parametrize(
    "text",
    [
        "{'loss': 2.31, 'num_tokens': 123456.0, 'mean_token_accuracy': 0.41}",
        "pad_token: <|endoftext|>, eos_token_id=128001",
        "tokens_per_second=1834.20 total_tokens: 1000000",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "0123456789abcdef0123456789abcdef01234567 is the commit",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text
