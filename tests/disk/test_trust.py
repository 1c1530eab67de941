"""What was read once is trusted until it is touched: any touch, also one that sets the times back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overnight.disk import checkpoints, trust
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import CheckpointReport, Manifest, Verdict


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for folder in (layout.model, layout.state, tmp_path / "staging"):
        folder.mkdir()
    (tmp_path / "staging" / "weights").write_bytes(b"w" * 1000)
    manifest = Manifest(
        step=5, job=1, job_step=5, job_total=100, start_step=0, attempt="000001-01", dataset_id="d" * 64,
        created_at=1.5, model_name="m", method="lora", locked={}, data_cursor={}, fingerprints={}, environment={},
        files={},
    )  # fmt: skip
    checkpoints.commit(tmp_path / "staging", layout.checkpoint(5), manifest)
    return layout


def newest(layout: Layout) -> CheckpointReport:
    found = checkpoints.newest_complete(layout.model)
    assert found is not None
    return found


def flip_a_bit(layout: Layout) -> None:
    path = layout.checkpoint(5) / "weights"
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_small_checkpoint_is_read_when_asked_for(layout: Layout) -> None:
    assert trust.is_verified(layout, newest(layout)) is True
    flip_a_bit(layout)
    assert trust.is_verified(layout, newest(layout)) is False


def test_a_big_one_is_unknown_until_somebody_has_read_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "READ_AT_ONCE_BYTES", 10)
    assert trust.is_verified(layout, newest(layout)) is None
    assert trust.verify(layout, layout.checkpoint(5)).verdict is Verdict.VERIFIED
    assert trust.is_verified(layout, newest(layout)) is True
    flip_a_bit(layout)
    assert trust.is_verified(layout, newest(layout)) is None
    assert trust.verify(layout, layout.checkpoint(5)).verdict is Verdict.CORRUPT


def test_what_was_not_touched_is_not_read_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.verify(layout, layout.checkpoint(5))

    def refuse(folder: Path) -> CheckpointReport:
        raise AssertionError("it was read again")

    monkeypatch.setattr(checkpoints, "verify", refuse)
    assert trust.verify(layout, layout.checkpoint(5)).verdict is Verdict.VERIFIED


def test_a_damaged_memory_is_no_memory(layout: Layout) -> None:
    (layout.state / "verified.json").write_text("[1")
    assert trust.verify(layout, layout.checkpoint(5)).verdict is Verdict.VERIFIED


def test_looking_writes_nothing(layout: Layout) -> None:
    before = {path.name for path in layout.state.iterdir()}
    trust.is_verified(layout, newest(layout))
    assert {path.name for path in layout.state.iterdir()} == before
