"""Two tellings of the same steps: equal to the last digit, or the first difference is named."""

from __future__ import annotations

from typing import Any

from overnight.domain.replay import by_step, first_difference


def told(*losses: float, first: int = 6, **others: Any) -> list[dict[str, Any]]:
    return [{"step": first + number, "loss": loss, "grad_norm": 1.0, **others} for number, loss in enumerate(losses)]


def test_equal_numbers_are_no_difference_however_far_each_one_tells() -> None:
    before, again = by_step(told(2.5, 2.25, 2.0), after=5), by_step(told(2.5, 2.25, 2.0, 1.75), after=5)
    assert first_difference(before, again) is None
    assert first_difference({}, again) is None


def test_the_last_digit_counts_and_the_first_difference_is_named() -> None:
    before, again = by_step(told(2.5, 2.25, 2.0), after=5), by_step(told(2.5, 2.2500000000000004, 1.0), after=5)
    found = first_difference(before, again)
    assert found is not None
    assert (found.step, found.name, found.equal) == (7, "loss", 1)
    assert "step 7 was trained twice with different loss: 2.25, now 2.2500000000000004" in found.reason


def test_equal_losses_with_other_gradients_are_a_difference() -> None:
    before, again = by_step(told(2.5), after=5), by_step(told(2.5, grad_norm=1.5), after=5)
    found = first_difference(before, again)
    assert found is not None
    assert (found.step, found.name, found.before, found.again) == (6, "grad_norm", 1.0, 1.5)
    assert "it is the first one trained twice" in found.reason


def test_evaluations_and_steps_before_the_start_are_passed_over() -> None:
    lines = [*told(2.5, 2.25), {"step": 7, "eval_loss": 9.0}, {"step": "7", "loss": 1.0}, {"loss": 1.0}]
    assert sorted(by_step(lines, after=6)) == [7]
    assert by_step(lines, after=6)[7]["loss"] == 2.25
