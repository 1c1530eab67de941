"""A quicker start: what Typer does for every verb and every value is done for those that are meant.

It converts every value by pydantic, also what needs no conversion, and its import takes longest; it builds the options
of all verbs to run one. Typer has no switch for this. Where a later Typer is built otherwise, nothing is changed and
the start is only slower.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import typer.core


def narrowed(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Return an application that has only the verb of a command line; the whole one where that is not plain."""
    verb = _verb(words)
    meant = [command for command in app.registered_commands if verb == (command.name or _name(command.callback))]
    if len(meant) != 1:
        return app
    narrow = copy.copy(app)
    narrow.registered_commands, narrow.registered_groups = meant, []
    return narrow


def _verb(words: Sequence[str]) -> str | None:
    """Return the verb where only the workspace and --debug stand before it: not where help is asked for, or no verb."""
    rest = iter(words)
    for word in rest:
        if word in ("-C", "--workspace"):
            next(rest, None)
        elif word != "--debug":
            return word
    return None


def _name(callback: Any) -> str:
    return typer.main.get_command_name(callback.__name__)


def spare_conversions() -> None:
    """Let Typer take as it is what was not given, and what has its type already: flags, texts, defaults."""
    module: Any = typer.core
    build = getattr(module, "build_runtime_param", None)
    if build is not None and not isinstance(build, _Builder):
        module.build_runtime_param = _Builder(build)


class _Builder:
    """Stands in the place of Typer's function that builds a converter."""

    def __init__(self, build: Any) -> None:
        self._build = build

    def __call__(self, descriptor: Any) -> _Converter:
        return _Converter(self._build, descriptor)


class _Converter:
    """Converts where there is something to convert; Typer's own converter is built for that, then."""

    def __init__(self, build: Any, descriptor: Any) -> None:
        self._build = build
        self._descriptor = descriptor

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the annotation wants it."""
        is_many = param.multiple or param.nargs == -1
        wanted = self._descriptor.annotation
        if not is_many and (value is None or type(value) is wanted):
            return value
        return self._build(self._descriptor).coerce(value, param=param, ctx=ctx)
