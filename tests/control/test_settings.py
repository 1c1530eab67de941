"""Changing settings: valid as a whole, locked keys kept, the rest of the file untouched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.control import settings
from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError, LockedError, UsageError

Commit = Callable[..., Path]


def values(layout: Layout) -> dict[str, Any]:
    return dict(json.loads(layout.config.read_text()))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.batch_size", "16", 16),
        ("train.learning_rate", "2e-5", 2e-5),
        ("train.packing", "true", True),
        ("train.threads", "null", None),
        ("lora.target_modules", '["q_proj", "v_proj"]', ["q_proj", "v_proj"]),
        ("lora.target_modules", "all-linear", "all-linear"),
        ("model_name", "7", "7"),
        ("model_name", "größe 日本", "größe 日本"),
        ("watch.grace_s", "5", 5),
    ],
)
def test_a_value_is_json_or_else_text_and_the_rest_stays(layout: Layout, key: str, text: str, value: Any) -> None:
    before = values(layout)
    settings.change(layout, key, text)
    after = values(layout)
    section, _, name = key.rpartition(".")
    assert (after[section] if section else after)[name] == value
    (after[section] if section else after)[name] = (before[section] if section else before)[name]
    assert after == before
    assert list(after) == list(before)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.batch_size", "0"),
        ("train.batch_size", "four"),
        ("train.batch_size", "4.5"),
        ("train.learning_rate", "NaN"),
        ("train.learning_rate", "1e999"),
        ("train.batch_szie", "4"),
        ("nonsense", "4"),
        ("", "4"),
        ("train", "4"),
        ("train.batch_size.deeper", "4"),
        ("model_name", "null"),
        ("launcher.address", "here"),
        ("schema", "2"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_changes(layout: Layout, key: str, text: str) -> None:
    before = layout.config.read_bytes()
    with pytest.raises(ConfigError):
        settings.change(layout, key, text)
    assert layout.config.read_bytes() == before


def test_a_locked_key_is_refused_with_current_and_locked_value(layout: Layout, commit: Commit) -> None:
    commit(48)
    before = layout.config.read_bytes()
    with pytest.raises(LockedError) as caught:
        settings.change(layout, "base_model", "org/other")
    assert str(caught.value).splitlines()[:3] == [
        "CRITICAL: Cannot change 'base_model' while checkpoints exist",
        "  Current:  org/other",
        "  Locked:   builtin:tiny (checkpoint-48)",
    ]
    assert layout.config.read_bytes() == before
    settings.change(layout, "seed", "42")  # the value that it has
    settings.change(layout, "train.batch_size", "2")  # not locked


def test_a_locked_key_is_refused_where_no_checkpoint_can_tell(layout: Layout, commit: Commit) -> None:
    (commit(48) / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="Nobody can tell"):
        settings.change(layout, "base_model", "org/other")
    settings.change(layout, "train.batch_size", "2")


def test_a_locked_key_that_was_edited_by_hand_may_be_set_back(layout: Layout, commit: Commit) -> None:
    commit(48)
    layout.config.write_text(json.dumps({**values(layout), "seed": 7}))
    assert [(p.key, p.code) for p in settings.check(layout).errors] == [("seed", "locked")]
    with pytest.raises(LockedError):
        settings.change(layout, "seed", "8")
    settings.change(layout, "seed", "42")
    assert settings.check(layout).is_ok


def test_a_broken_file_is_mended_key_by_key(layout: Layout) -> None:
    broken = values(layout)
    broken["train"]["batch_size"] = "4"
    broken["train"]["epochs"] = 0
    layout.config.write_text(json.dumps(broken))
    assert {problem.key for problem in settings.check(layout).errors} == {"train.batch_size", "train.epochs"}
    settings.change(layout, "train.batch_size", "4")
    with pytest.raises(ConfigError):
        settings.change(layout, "train.epochs", "-1")
    settings.change(layout, "train.epochs", "1")
    assert settings.check(layout).is_ok


def test_check_tells_syntax_locked_keys_and_a_missing_base_model(layout: Layout, commit: Commit) -> None:
    assert settings.check(layout).is_ok
    commit(48)
    checked = settings.check(layout)
    assert (checked.is_ok, checked.locked.values["seed"], checked.locked.source) == (True, 42, "checkpoint-48")
    layout.config.write_text(json.dumps({**values(layout), "base_model": "/gone", "seed": 1, "train": {"epochs": 0}}))
    assert {(p.key, p.code) for p in settings.check(layout).errors} >= {("train.epochs", "value"), ("seed", "locked")}
    layout.config.write_text("{")
    assert [p.code for p in settings.check(layout).problems] == ["syntax"]
    with pytest.raises(ConfigError, match="line 1, column 2"):
        settings.require(layout)


def test_a_base_model_that_is_not_there_is_a_problem(layout: Layout) -> None:
    layout.config.write_text(json.dumps({**values(layout), "base_model": "/gone/away"}))
    assert [problem.key for problem in settings.check(layout).errors] == ["base_model"]


@pytest.mark.parametrize("item", ["train.batch_size", "=4", " =4"])
def test_an_assignment_has_a_key_and_a_value(item: str) -> None:
    with pytest.raises(UsageError, match="no assignment"):
        settings.build([item], base_model="b", model_name="m")


def test_assignments_are_judged_together() -> None:
    built = settings.build(["train.batch_size=4", "model_name=7", "lora.r=8"], base_model="b", model_name="m")
    assert (built["train"]["batch_size"], built["model_name"], built["lora"]["r"]) == (4, "7", 8)
    with pytest.raises(ConfigError, match="2 settings are refused"):
        settings.build(["train.batch_size=0", "colour=red"], base_model="b", model_name="m")
