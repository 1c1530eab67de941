"""What may not change while checkpoints exist: the comparison, and the words of the refusal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from overnight.domain.config import LOCKED_KEYS, ConfigProblem, Settings, flatten, refusal
from overnight.domain.errors import ConfigError, LockedError
from overnight.domain.lock_values import Locked

WHY = {
    "base_model": "the checkpoints hold changes to that very base; on another one they mean nothing",
    "model_name": "the checkpoints were saved under that name",
    "max_length": "the saved position in the data counts examples of that length",
    "method": "the saved weights have that method's shape",
    "seed": "the saved order of the data comes from it",
}
WHY_LORA = "the saved adapter has that shape"


def locked_keys_changed(settings: Settings, locked: Locked) -> list[ConfigProblem]:
    """Return one problem for each setting that differs from its locked value."""
    current = flatten(settings.to_json())
    return [
        _problem(key, current.get(key), locked.values[key], locked.source)
        for key in LOCKED_KEYS
        if key in locked.values and not _is_same(current.get(key), locked.values[key])
    ]


def unreadable_lock() -> ConfigProblem:
    """Return the problem of checkpoints that cannot say what belongs to them."""
    return ConfigProblem(
        key="",
        code="locked",
        message="CRITICAL: Nobody can tell which settings belong to the checkpoints",
        found="checkpoints in current_model/ without a readable manifest, and no .config_lock.json",
        expected="one readable manifest",
        fix="overnight verify says what is wrong with each checkpoint",
    )


def refused(problems: Iterable[ConfigProblem]) -> ConfigError:
    """Return one error for refused settings; a single locked key is told with its current and its locked value."""
    told = list(problems)
    first = told[0]
    if len(told) > 1 or first.code != "locked":
        return refusal(told)
    return LockedError(
        first.message, found=first.found, expected=first.expected, why=why(first.key), fix=first.fix, code="locked"
    )


def why(key: str) -> str:
    """Return why a key is locked, fit for the user."""
    return WHY_LORA if key.startswith("lora.") else WHY.get(key, "the checkpoints cannot be used without it")


def _is_same(current: Any, locked: Any) -> bool:
    """Return whether two values mean the same: the order in which layers are named means nothing."""
    if isinstance(current, list) and isinstance(locked, list):
        return sorted(map(str, current)) == sorted(map(str, locked))
    return bool(current == locked)


def _problem(key: str, current: Any, locked: Any, source: str | None) -> ConfigProblem:
    return ConfigProblem(
        key=key,
        code="locked",
        message=f"CRITICAL: Cannot change '{key}' while checkpoints exist",
        found=_shown(current),
        expected=f"{_shown(locked)} ({source})" if source else _shown(locked),
        fix=f"set it back: overnight config set {key} {_shown(locked)}; for another value make a new workspace",
    )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
