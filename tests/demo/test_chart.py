"""The picture: a PNG with both parts of the curve and the kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.demo import chart

pytest.importorskip("matplotlib")


def test_the_running_mean_keeps_the_steps_and_evens_out_the_losses() -> None:
    curve = [(step, float(step % 2)) for step in range(20)]
    smoothed = chart.smooth(curve)
    assert [step for step, _ in smoothed] == [step for step, _ in curve]
    assert max(loss for _, loss in smoothed[3:-3]) - min(loss for _, loss in smoothed[3:-3]) < 0.2
    assert chart.smooth([(1, 2.0)]) == [(1, 2.0)]


def test_the_picture_is_a_png_of_a_readable_size(tmp_path: Path) -> None:
    story = chart.Story(
        title="a story",
        before=[(step, 8 / step) for step in range(1, 46)],
        after=[(step, 8 / step) for step in range(41, 97)],
        killed_at=45,
        resumed_from=40,
    )
    chart.draw(story, tmp_path / "loss.png")
    data = (tmp_path / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") >= 1000  # pixels wide
