"""What tests of several floors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clock_shim import Clock
from control_group import MemoryGroup, memory_group
from simulated_rig import Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Give a workspace whose trainers are simulated; everything that it started is ended afterwards."""
    made = Rig(tmp_path / "workspace", monkeypatch)
    yield made
    made.end()


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """Give a memory control group of the test's own."""
    with memory_group() as made:
        yield made


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give a wall clock that the test sets, for every process that it starts."""
    made = Clock(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
