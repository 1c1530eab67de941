from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from version_rig import VersionRig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VersionRig]:
    made = VersionRig(tmp_path / "w", monkeypatch)
    made.make()
    made.simulate(step_s=0.0)
    yield made
    made.end()
