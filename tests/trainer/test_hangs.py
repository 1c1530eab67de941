"""What would be waited for for ever is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rig import Rig, sums

from overnight.domain.attempt import Outcome


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_place_of_a_file_of_the_base_model_is_refused_and_named(tmp_path: Path, name: str) -> None:
    rig = Rig(tmp_path)
    place = rig.layout.base / "tiny" / name
    place.unlink()
    os.mkfifo(place)
    report = rig.run(rig.spec(1, rig.rows(sums(1, 8), "a")))
    assert report.outcome is Outcome.CRASHED
    assert str(place) in report.message
    assert not report.charged
