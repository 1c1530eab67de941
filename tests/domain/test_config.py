"""The settings: every wrong value is refused, all at once, with the nearest key; the rest has its default."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.domain.config import LOCKED_KEYS, Settings, check, flatten, known_keys, parse, refusal
from overnight.domain.errors import ConfigError, LockedError
from overnight.domain.lock_values import Locked
from overnight.domain.locked import locked_keys_changed, refused, why

VALID: dict[str, Any] = {"model_name": "m", "base_model": "b"}


def put(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    return {**VALID, section: {name: value}} if section else {**VALID, name: value}


def errors_of(values: object) -> dict[str, str]:
    _, problems = check(values)
    return {problem.key: problem.code for problem in problems if problem.level == "error"}


NUMBERS = [
    key
    for key, default in flatten(Settings(**VALID).to_json()).items()
    if isinstance(default, int | float) and not isinstance(default, bool) and key != "schema"
]


@pytest.mark.parametrize("value", ["4", None, True, float("nan"), float("inf"), -1, 10**12, [], {}], ids=repr)
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_nothing_else_than_a_number_in_its_range(key: str, value: Any) -> None:
    found = errors_of(put(key, value))
    assert found, f"{key} = {value!r} was taken"
    assert all(told == key or told.startswith(f"{key}.") for told in found)


@pytest.mark.parametrize(
    "key", [k for k in NUMBERS if k.endswith(("batch_size", "epochs", "keep", ".r", "every_steps"))]
)
def test_a_count_is_at_least_one(key: str) -> None:
    assert errors_of(put(key, 0)) == {key: "value"}


@pytest.mark.parametrize(
    "key", [key for key, value in flatten(Settings(**VALID).to_json()).items() if isinstance(value, bool)]
)
@pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
def test_a_switch_is_true_or_false(key: str, value: Any) -> None:
    assert errors_of(put(key, value)) == {key: "type"}


def test_all_faults_come_in_one_report() -> None:
    found = errors_of({"base_model": "", "train": {"batch_size": "4", "epochs": 0}, "seed": -1, "colour": "red"})
    assert set(found) == {"model_name", "base_model", "train.batch_size", "train.epochs", "seed", "colour"}


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("batch_szie", "train.batch_size"), ("train.batch_szie", "train.batch_size"), ("modle_name", "model_name")],
)
def test_a_misspelt_key_is_refused_with_the_nearest_one(wrong: str, near: str) -> None:
    _, problems = check(put(wrong, 4))
    assert [(p.key, p.code, near in (p.expected or "")) for p in problems] == [(wrong, "unknown", True)]


@pytest.mark.parametrize("values", [None, [], 7, "text"], ids=repr)
def test_anything_but_an_object_is_refused(values: object) -> None:
    settings, problems = check(values)
    assert settings is None
    assert problems[0].code == "type"


def test_missing_names_are_asked_for() -> None:
    assert errors_of({}) == {"model_name": "missing", "base_model": "missing"}


def test_limits_that_exclude_each_other_are_refused_and_doubtful_ones_warned_of() -> None:
    _, problems = check({**VALID, "watch": {"no_progress_s": 5000.0, "daemon_dead_s": 90.0}})
    assert {(p.key, p.level) for p in problems} == {
        ("watch.stuck_s", "error"), ("watch.eval_stuck_s", "warning"), ("watch.back_up_s", "error"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"watch\.stuck_s"):
        parse({**VALID, "watch": {"no_progress_s": 901.0}})
    assert parse({**VALID, "watch": {"no_progress_s": 900.0}}).watch.stuck_s == 900.0


def test_an_address_without_ray_is_refused() -> None:
    with pytest.raises(ConfigError, match="ray launcher"):
        parse({**VALID, "launcher": {"address": "auto"}})


def test_what_is_written_is_read_back_as_it_was() -> None:
    settings = parse({**VALID, "train": {"batch_size": 3}, "lora": {"dropout": 0.0}})
    assert parse(settings.to_json()) == settings


def test_settings_cannot_be_changed_after_reading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(VALID).seed = 7


def test_one_problem_is_told_with_found_and_expected_and_several_in_one_list() -> None:
    _, one = check(put("seed", -1))
    _, two = check({**put("seed", -1), "max_length": 0})
    assert "Found:" in str(refusal(one))
    assert str(refusal(two)).startswith("2 settings are refused")
    assert refusal(two).exit_code == 78


def test_every_locked_key_is_a_setting_and_says_why() -> None:
    assert set(LOCKED_KEYS) <= set(known_keys())
    assert all(why(key) for key in LOCKED_KEYS)


def test_a_changed_locked_key_is_told_with_current_and_locked_value() -> None:
    locked = Locked(values={"base_model": "b", "seed": 42}, source="checkpoint-48", step=48)
    problems = locked_keys_changed(parse({**VALID, "base_model": "other"}), locked)
    error = refused(problems)
    assert isinstance(error, LockedError)
    text = str(error)
    assert text.startswith("CRITICAL: Cannot change 'base_model' while checkpoints exist\n")
    assert "  Current:  other\n" in text
    assert "  Locked:   b (checkpoint-48)\n" in text
    assert "  Why:      " in text
    assert error.exit_code == 78


def test_settings_as_they_were_locked_are_fine() -> None:
    settings = parse(VALID)
    flat = flatten(settings.to_json())
    locked = Locked(values={key: flat[key] for key in LOCKED_KEYS}, source="checkpoint-1", step=1)
    assert locked_keys_changed(settings, locked) == []
