"""What follows a failed attempt."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from overnight.domain.attempt import Attempt, AttemptState, FailureKind, Outcome
from overnight.domain.remedies import ENVIRONMENT
from overnight.domain.retry import TURN_LIMIT, Again, GiveUp, decide, keeps_its_turn


def ended(
    number: int,
    *,
    outcome: Outcome = Outcome.CRASHED,
    kind: FailureKind | None = FailureKind.CODE_ERROR,
    step: int = 7,
    first: int = 5,
    number_of_signal: int | None = None,
) -> Attempt:
    return Attempt(
        id=f"000001-{number:02d}", job=1, number=number, state=AttemptState.ENDED, outcome=outcome, kind=kind,
        handle="h", reason="why", started_at=0.0, ended_at=1.0, exit_code=1, signal=number_of_signal,
        first_step=first, last_step=step,
    )  # fmt: skip


def killed(number: int, *, first: int = 5, step: int = 7) -> Attempt:
    return ended(
        number, kind=FailureKind.KILLED_BY_SIGNAL, number_of_signal=signal.SIGKILL, first=first, step=step
    )  # fmt: skip


def judge(history: list[Attempt], **changes: object) -> Again | GiveUp:
    words = {"checkpoint": None, "charged": False, "charged_before": 0, "max_attempts": 3, "now": 100.0}
    return decide(history, **{**words, **changes})  # type: ignore[arg-type]


def pauses(history: list[Attempt], **changes: object) -> list[float]:
    """Return the pause after each attempt of a history."""
    decisions = [judge(history[: end + 1], **changes) for end in range(len(history))]
    return [decision.not_before - 100.0 for decision in decisions if isinstance(decision, Again)]


def test_a_killed_trainer_is_launched_again_at_once_and_then_slower_and_slower_but_always() -> None:
    history = [killed(number) for number in range(1, 12)]
    assert pauses(history) == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_killed_trainer_that_had_saved_something_new_is_again_launched_at_once() -> None:
    history = [killed(number, first=5 * number, step=5 * number + 6) for number in range(1, 9)]
    assert [judge(history[:end], checkpoint=5 * (end + 1)) for end in range(1, 9)] == [
        Again(not_before=100.0, charge=False, reason="tried again at once: why")
    ] * 8


@pytest.mark.parametrize("kind", sorted(ENVIRONMENT))
def test_a_fault_of_the_machine_is_waited_out_and_never_costs_the_job_a_try(kind: FailureKind) -> None:
    history = [ended(number, kind=kind, step=5) for number in range(1, 101)]
    decision = judge(history)
    assert isinstance(decision, Again)
    assert not decision.charge
    assert decision.not_before == 160.0
    assert pauses(history[:3]) == [1, 2, 4]


def test_a_charged_failure_is_given_up_after_the_last_allowed_try() -> None:
    first = judge([ended(1, kind=FailureKind.DATA_FORMAT)], charged=True)
    assert isinstance(first, Again)
    assert first.charge
    last = judge([ended(1), ended(2, step=8), ended(3, step=9)], charged=True, charged_before=2)
    assert isinstance(last, GiveUp)
    assert "3 tries" in last.reason


def test_the_same_crash_at_the_same_step_three_times_gives_the_job_up() -> None:
    history = [ended(1), ended(2), ended(3)]
    assert isinstance(judge(history[:2]), Again)
    decision = judge(history)
    assert isinstance(decision, GiveUp)
    assert "the same crash at step 7 3 times" in decision.reason


def test_interruptions_between_equal_crashes_do_not_hide_them() -> None:
    history = [ended(1), killed(2), ended(3), ended(4, outcome=Outcome.PREEMPTED, kind=None), ended(5)]
    assert isinstance(judge(history), GiveUp)


@pytest.mark.parametrize(
    "other",
    [{"step": 8}, {"kind": FailureKind.CUDA_OOM}, {"number_of_signal": signal.SIGSEGV}],
    ids=["another step", "another kind", "another signal"],
)
def test_different_crashes_are_not_counted_as_one(other: dict[str, object]) -> None:
    history = [ended(1), ended(2, **other), ended(3)]  # type: ignore[arg-type]
    assert isinstance(judge(history), Again)


def test_kills_from_outside_at_the_same_step_never_give_an_innocent_job_up() -> None:
    assert isinstance(judge([killed(number) for number in range(1, 20)]), Again)


def test_a_segfault_at_the_same_step_three_times_does() -> None:
    history = [ended(n, kind=FailureKind.SEGFAULT, number_of_signal=signal.SIGSEGV) for n in (1, 2, 3)]
    assert isinstance(judge(history), GiveUp)


def test_a_hang_before_the_first_step_blames_nobody_and_a_hang_at_a_step_three_times_the_job() -> None:
    loading = [ended(n, outcome=Outcome.HUNG, kind=FailureKind.HANG, step=5) for n in (1, 2, 3, 4)]
    assert isinstance(judge(loading), Again)
    training = [replace(attempt, last_step=7) for attempt in loading]
    assert isinstance(judge(training), GiveUp)


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.HUNG, Outcome.LOST])
@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_of_failure_has_a_rule(kind: FailureKind, outcome: Outcome) -> None:
    decision = judge([ended(1, outcome=outcome, kind=kind)])
    assert isinstance(decision, Again)
    assert decision.reason.endswith("why")


def test_a_job_that_was_interrupted_keeps_its_turn_but_not_for_ever() -> None:
    assert keeps_its_turn([killed(1)])
    assert keeps_its_turn([ended(1, kind=FailureKind.SEGFAULT, number_of_signal=signal.SIGSEGV)])
    assert keeps_its_turn([ended(1, outcome=Outcome.HUNG, kind=FailureKind.HANG)])
    assert keeps_its_turn([killed(number) for number in range(1, TURN_LIMIT + 1)])
    assert not keeps_its_turn([killed(number) for number in range(1, TURN_LIMIT + 2)])
    moved_on = [killed(number) for number in range(1, TURN_LIMIT + 2)] + [killed(TURN_LIMIT + 2, first=9)]
    assert keeps_its_turn(moved_on), "a step was made safe in between"


def test_a_failure_that_the_data_may_have_caused_never_holds_up_others() -> None:
    assert not keeps_its_turn([])
    assert not keeps_its_turn([ended(1)])
    assert not keeps_its_turn([killed(1), ended(2, kind=FailureKind.DATA_FORMAT)])
    assert not keeps_its_turn([ended(1, outcome=Outcome.PREEMPTED, kind=None)])


def test_what_can_be_repaired_is_tried_again_at_once_however_often_it_failed() -> None:
    history = [ended(number, kind=FailureKind.CUDA_OOM) for number in (1, 2, 3, 4)]
    decision = judge(history, repair="with 2 x 4 instead of 4 x 2")
    assert isinstance(decision, Again)
    assert (decision.not_before, decision.charge) == (100.0, False)
    assert "with 2 x 4" in decision.reason


def test_a_device_without_room_for_one_row_is_no_endless_loop_wherever_it_strikes() -> None:
    history = [ended(number, kind=FailureKind.CUDA_OOM, step=6 + number) for number in (1, 2, 3)]
    assert isinstance(judge(history[:2]), Again)
    assert isinstance(judge(history), GiveUp)


def test_a_failure_that_other_jobs_meet_too_gives_no_file_up() -> None:
    history = [ended(number, step=5) for number in range(1, 30)]
    assert isinstance(judge(history[:3]), GiveUp)
    decision = judge(history, is_shared=True)
    assert isinstance(decision, Again)
    assert not decision.charge
    assert decision.not_before == 160.0
    assert isinstance(judge(history, is_shared=True, charged=True, charged_before=2), GiveUp)
