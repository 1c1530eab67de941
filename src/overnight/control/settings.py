"""The settings as the operator sees them: check, change one, say what is locked."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from typing import Any

from overnight import starting
from overnight.disk import base_models, config, locked
from overnight.disk.layout import Layout
from overnight.domain.config import LOCKED_KEYS, ConfigProblem, Settings, flatten
from overnight.domain.config import check as check_values
from overnight.domain.errors import ConfigError, UsageError
from overnight.domain.lock_values import Locked
from overnight.domain.locked import locked_keys_changed, refused, unreadable_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the validator says of a workspace's settings."""

    settings: Settings | None  # None where they cannot be read
    locked: Locked
    problems: list[ConfigProblem]

    @property
    def errors(self) -> list[ConfigProblem]:
        """The problems that stop the work."""
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def is_ok(self) -> bool:
        """Whether nothing stops the work."""
        return not self.errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that was changed."""

    key: str
    before: Any
    after: Any
    warnings: list[ConfigProblem]


def check(layout: Layout) -> Checked:
    """Judge config.json: readable, valid, in agreement with the checkpoints, and its base model there."""
    lock = locked.read(layout)
    try:
        raw = config.read_raw(layout.config)
    except ConfigError as error:
        return Checked(settings=None, locked=lock, problems=[_as_problem("", error)])
    settings, problems = check_values(raw)
    if settings is None:
        return Checked(settings=None, locked=lock, problems=[*problems, *_locked_in_raw(raw, lock)])
    if not lock.readable:
        problems = [*problems, unreadable_lock()]
    base = _base_model(layout, settings) or starting.base_problems(layout, base_model=settings.base_model)
    problems = [*problems, *locked_keys_changed(settings, lock), *base]
    return Checked(settings=settings, locked=lock, problems=problems)


def require(layout: Layout) -> Settings:
    """Return settings that work may start with. Raises ConfigError that tells every problem."""
    checked = check(layout)
    if checked.settings is None or not checked.is_ok:
        raise refused(checked.errors)
    return checked.settings


def change(layout: Layout, key: str, text: str) -> Change:
    """Set one value (JSON where it is JSON, else text), validated as a whole and written durably.

    Raises ConfigError where the value is refused or locked; nothing is changed then. A file that is broken elsewhere
    may be mended key by key: only a problem that was not there before refuses the change.
    """
    with config.changing(layout, holder={"schema": 1, "pid": os.getpid()}):
        raw = config.read_raw(layout.config)
        _, standing = check_values(raw)
        known = {(problem.key, problem.code) for problem in standing}
        for value in _readings(text):
            changed = copy.deepcopy(raw)
            assign(changed, key, value)
            _, problems = check_values(changed)
            new = [
                p for p in problems if p.level == "error" and (_is_about(p.key, key) or (p.key, p.code) not in known)
            ]
            if not new:
                break
        if new:
            raise refused(new)
        _refuse_locked(raw, changed, locked.read(layout))
        before = flatten(raw).get(key)
        config.write(layout, changed)
    warnings = [problem for problem in problems if problem.level == "warning"]
    return Change(key=key, before=before, after=value, warnings=warnings)


def build(assignments: list[str], *, base_model: str, model_name: str) -> dict[str, Any]:
    """Return the values of a new config.json from ``key=value`` texts. Raises UsageError or ConfigError."""
    values: dict[str, Any] = {"model_name": model_name, "base_model": base_model}
    for item in assignments:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--set {item!r} is no assignment",
                found=item,
                expected="key=value, such as train.batch_size=4",
                fix="see overnight config schema for the keys",
            )
        for value in _readings(text):
            changed = copy.deepcopy(values)
            assign(changed, key.strip(), value)
            _, problems = check_values(changed)
            if not any(_is_about(problem.key, key.strip()) for problem in problems if problem.level == "error"):
                break
        values = changed
    settings, problems = check_values(values)
    errors = [problem for problem in problems if problem.level == "error"]
    if settings is None or errors:
        raise refused(errors)
    full = settings.to_json()
    return {key: value for key, value in full.items() if key not in ("$schema", "schema")}


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value where a dotted key says; sections on the way are made."""
    *sections, name = key.split(".")
    place = values
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            inner = place[section] = {}
        place = inner
    place[name] = value


def _readings(text: str) -> list[Any]:
    """Return what a text may mean: JSON first; a number may also be meant as text, such as a model's name "7"."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return [text]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [value, text] if is_number else [value]


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _is_about(problem_key: str, key: str) -> bool:
    return problem_key == key or problem_key.startswith(f"{key}.")


def _refuse_locked(before: dict[str, Any], after: dict[str, Any], lock: Locked) -> None:
    old, new = flatten(_with_defaults(before)), flatten(_with_defaults(after))
    changed = [key for key in LOCKED_KEYS if old.get(key) != new.get(key)]
    if changed and not lock.readable:
        raise refused([unreadable_lock()])
    problems = [problem for problem in _locked_in_raw(after, lock) if problem.key in changed]
    if problems:
        raise refused(problems)


def _locked_in_raw(raw: dict[str, Any], lock: Locked) -> list[ConfigProblem]:
    """Compare the locked keys of settings that may be invalid elsewhere."""
    filled = flatten(_with_defaults(raw))
    only_locked: dict[str, Any] = {"model_name": "unnamed", "base_model": "unknown"}
    for key in lock.values:
        if key in filled:
            assign(only_locked, key, filled[key])
    settings, _ = check_values(only_locked)
    return locked_keys_changed(settings, lock) if settings is not None else []


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    full = Settings(model_name="unnamed", base_model="unknown").to_json()
    for key, value in flatten(raw).items():
        assign(full, key, value)
    return full


def _base_model(layout: Layout, settings: Settings) -> list[ConfigProblem]:
    try:
        base_models.resolve(layout, settings.base_model)
    except ConfigError as error:
        return [_as_problem("base_model", error)]
    return []


def _as_problem(key: str, error: ConfigError) -> ConfigProblem:
    return ConfigProblem(
        key=key,
        code=error.code or "value",
        message=error.what,
        found=error.found,
        expected=error.expected,
        fix=error.fix,
    )
