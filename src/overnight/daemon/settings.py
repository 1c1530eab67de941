"""config.json, read again where it was touched: a broken one never stops what runs, it only starts nothing new."""

from __future__ import annotations

import os

from overnight.daemon.context import Context, Moment
from overnight.disk import config
from overnight.domain.config import Settings, parse
from overnight.domain.errors import OvernightError

RECHECK_S = 5.0
"""A refused file is read again so often: the cause may lie outside of it."""


def fallback() -> Settings:
    """Return settings whose limits hold until valid ones were read; nothing is ever trained with them."""
    return Settings(model_name="unknown", base_model="unknown")


def reread(context: Context, now: Moment) -> None:
    """Read the settings again where the file was touched."""
    looks = _looks(context)
    is_due = context.config_problem is not None and now.boot >= context.memory.get("config_at", 0.0)
    if looks == context.config_looks and not is_due:
        return
    context.memory["config_at"] = now.boot + RECHECK_S
    try:
        context.limits = parse(config.read_raw(context.layout.config, patience_s=0.0))
    except OvernightError as error:
        context.config_problem = error
        context.tell(
            "config", f"config.json is refused, nothing new is started: {error}", kind="config.refused",
            level="error", at=now.unix,
        )  # fmt: skip
    else:
        if context.config_problem is not None:
            context.record("config.json is fine again", kind="config.accepted", at=now.unix)
        context.config_problem = None
        context.forget("config")
    context.config_looks = looks


def _looks(context: Context) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(context.layout.config)
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
