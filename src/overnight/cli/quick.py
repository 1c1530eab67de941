"""A quicker start: Typer converts every value by pydantic, also what needs no conversion, and its import takes longest.

Typer has no switch for this. Where a later Typer is built otherwise, nothing is changed and the start is only slower.
"""

from __future__ import annotations

from typing import Any

import typer.core


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
