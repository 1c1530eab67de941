"""Whether the whole queue waits, and whether a job waits for memory."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from overnight.domain.attempt import Attempt, AttemptState, FailureKind, Outcome
from overnight.domain.hold import LONGEST_WAIT_S, is_shared, judge, wait_for_memory


def ended(
    job: int,
    number: int = 1,
    *,
    kind: FailureKind | None = FailureKind.CODE_ERROR,
    outcome: Outcome = Outcome.CRASHED,
    first: int = 5,
    last: int = 5,
    reason: str = "ValueError: no such thing",
    at: float = 100.0,
) -> Attempt:
    return Attempt(
        id=f"{job:06d}-{number:02d}", job=job, number=number, state=AttemptState.ENDED, outcome=outcome, kind=kind,
        handle="h", reason=reason, started_at=at - 1, ended_at=at, exit_code=1, signal=None, first_step=first,
        last_step=last,
    )  # fmt: skip


def test_one_job_alone_holds_nobody() -> None:
    assert judge([ended(1, 3), ended(1, 2), ended(1, 1)], now=100.5) is None
    assert judge([], now=100.0) is None


def test_two_jobs_that_fail_alike_at_their_start_hold_the_queue_and_the_pauses_grow() -> None:
    newest = [ended(2), ended(1)]
    hold = judge(newest, now=100.5)
    assert hold is not None
    assert hold.until == 102.0
    assert "not their data" in hold.reason
    assert "ValueError: no such thing" in hold.reason
    assert judge(newest, now=102.0) is None, "then one is tried"
    many = [ended(1 + number % 2, number) for number in range(20, 0, -1)]
    longest = judge(many, now=100.5)
    assert longest is not None
    assert longest.until == 160.0


def test_numbers_and_paths_in_the_words_do_not_make_failures_differ() -> None:
    one = ended(1, reason="OSError: /a/b/model-00001.bin: read 17 bytes at 0xdeadbeef")
    other = ended(2, reason="OSError: /c/model-00002.bin: read 99 bytes at 0xcafe")
    assert is_shared([one, other])


@pytest.mark.parametrize(
    "other",
    [
        {"reason": "KeyError: quite another"},
        {"kind": FailureKind.DATA_FORMAT},
        {"kind": FailureKind.NAN_LOSS},
        {"last": 9},
        {"outcome": Outcome.COMPLETED, "kind": None},
    ],
    ids=["another failure", "data", "nan", "it trained", "it was done"],
)
def test_what_differs_or_is_the_data_s_holds_nobody(other: dict[str, object]) -> None:
    assert judge([ended(2), ended(1, **other)], now=100.5) is None  # type: ignore[arg-type]
    same = [ended(2, **other), ended(1, **other)]  # type: ignore[arg-type]
    if "reason" not in other:
        assert judge(same, now=100.5) is None


def test_a_fault_of_the_machine_holds_the_queue_wherever_it_strikes() -> None:
    full = [ended(2, kind=FailureKind.DISK_FULL, last=9), ended(1, kind=FailureKind.DISK_FULL, last=7)]
    assert judge(full, now=100.5) is not None


def test_a_kill_from_outside_in_between_changes_nothing() -> None:
    killed = replace(ended(3, kind=FailureKind.KILLED_BY_SIGNAL), signal=int(signal.SIGKILL))
    assert judge([ended(2), killed, ended(1)], now=100.5) is not None


def test_a_clock_that_was_set_back_holds_nobody_for_ever() -> None:
    assert judge([ended(2), ended(1)], now=-10_000.0) is None


def memory(numbers: int, **changes: object) -> list[Attempt]:
    return [ended(1, number, kind=FailureKind.HOST_OOM, last=7, **changes) for number in range(1, numbers + 1)]  # type: ignore[arg-type]


def wait(history: list[Attempt], *, available: int | None = 10, now: float = 101.0) -> str | None:
    return wait_for_memory(history, needed_bytes=100, available_bytes=available, now=now)


def test_after_a_few_quick_tries_a_job_waits_until_the_memory_is_there() -> None:
    assert wait(memory(2)) is None
    assert "waiting for memory" in (wait(memory(3)) or "")
    assert wait(memory(3), available=105) is not None, "it wanted more than it held"
    assert wait(memory(3), available=111) is None
    assert wait(memory(3), available=None) is None
    assert wait(memory(3), now=100.0 + LONGEST_WAIT_S) is None, "tried now and then all the same"


def test_tries_that_gained_a_checkpoint_are_not_counted() -> None:
    history = memory(3)
    gained = [history[0], replace(history[1], first_step=10, last_step=12), replace(history[2], first_step=15)]
    assert wait(gained) is None
    assert wait([*memory(2), ended(1, 3, kind=FailureKind.CODE_ERROR)]) is None
