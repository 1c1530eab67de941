"""The config lock on disk: the newest readable checkpoint speaks, a copy stands in, silence never means freedom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.disk import checkpoints, locked
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Manifest


def commit(layout: Layout, step: int, *, seed: int = 42) -> Path:
    staging = layout.root / "staging"
    staging.mkdir()
    (staging / "weights").write_bytes(b"w" * 100)
    manifest = Manifest(
        step=step, job=1, job_step=step, job_total=100, start_step=0, attempt="000001-01", dataset_id="d" * 64,
        created_at=1.5, model_name="m", method="lora", locked={"seed": seed, "base_model": "b"}, data_cursor={},
        fingerprints={"base_model": "x"}, environment={}, files={},
    )  # fmt: skip
    checkpoints.commit(staging, layout.checkpoint(step), manifest)
    return layout.checkpoint(step)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "current_model").mkdir()
    return Layout(tmp_path)


def test_nothing_is_locked_before_the_first_checkpoint(layout: Layout) -> None:
    (layout.model / "checkpoint-7").mkdir()  # an empty folder is junk
    (layout.model / "checkpoint-abc").mkdir()
    assert locked.read(layout).values == {}
    assert locked.read(layout).readable


def test_the_highest_step_speaks_by_number_not_by_text(layout: Layout) -> None:
    commit(layout, 900, seed=1)
    commit(layout, 3200, seed=2)
    found = locked.read(layout)
    assert (found.values["seed"], found.source, found.step) == (2, "checkpoint-3200", 3200)


def test_an_older_checkpoint_speaks_where_the_newest_cannot_be_read(layout: Layout) -> None:
    commit(layout, 5, seed=1)
    (commit(layout, 10) / "manifest.json").write_text("{")
    assert locked.read(layout).source == "checkpoint-5"


def test_the_copy_speaks_where_no_checkpoint_can(layout: Layout) -> None:
    folder = commit(layout, 5, seed=7)
    locked.refresh(layout)
    (folder / "manifest.json").unlink()
    found = locked.read(layout)
    assert (found.values["seed"], found.source) == (7, ".config_lock.json")
    layout.config_lock.write_text("torn")
    assert not locked.read(layout).readable


def test_the_copy_is_written_once_and_holds_the_fingerprints(layout: Layout) -> None:
    assert locked.refresh(layout).source is None
    assert not layout.config_lock.exists()
    commit(layout, 5)
    locked.refresh(layout)
    before = layout.config_lock.stat()
    locked.refresh(layout)
    assert layout.config_lock.stat().st_ino == before.st_ino
    value = json.loads(layout.config_lock.read_text())
    assert value["schema"] == 1
    assert value["fingerprints"] == {"base_model": "x"}
