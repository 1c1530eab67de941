"""Versions on disk: sealed with the manifest last, read-only, judged by reading every byte."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.disk import builtin, fingerprints, versions, workspace
from overnight.disk.layout import Layout
from overnight.domain.errors import UsageError
from overnight.domain.version import Version, VersionState

BLANK = Version(
    id="v001", parent=None, kind="merge", description="the first", created_at=1_700_000_000.5, step=16,
    model_name="test", method="lora", base_model="builtin:tiny", base_path="/nowhere", base_fingerprint="blake3:00",
    checkpoint="checkpoint-16", checkpoint_digest="11", datasets=[{"file": "a|b.jsonl", "sha256": "22", "examples": 8}],
    config={"seed": 42}, locked={"base_model": "models/v001"}, metrics={"loss": 1.5}, libraries={"torch": "none"},
    merge={}, fingerprints={},
)  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = workspace.new_layout(tmp_path / "w")
    workspace.create(made)
    return made


def publish(layout: Layout, identity: str = "v001", *, parent: str | None = None, description: str = "it") -> Path:
    """Publish a copy of the tiny model."""
    staging = versions.make_staging(layout, identity)
    staging.rmdir()
    builtin.make_tiny(staging)
    (staging / "adapter").mkdir()
    (staging / "adapter" / "adapter_model.safetensors").write_bytes(b"adapter")
    versions.seal(staging, dataclasses.replace(BLANK, id=identity, parent=parent, description=description))
    staging.rename(layout.versions / identity)
    return layout.versions / identity


def test_a_sealed_version_reads_back_and_is_read_only(layout: Layout) -> None:
    folder = publish(layout, description="../../x\n🙂")
    read = versions.read(folder)
    assert read.description == "../../x\n🙂"
    assert {"model.safetensors", "README.md", "adapter/adapter_model.safetensors"} <= set(read.files)
    assert read.fingerprints["base_model"] == fingerprints.of_folder(folder), "what a checkpoint on it will record"
    assert versions.verify(folder).state is VersionState.OK
    modes = {stat.S_IMODE(os.lstat(path).st_mode) & 0o222 for path in [folder, *folder.rglob("*")]}
    assert modes == {0}
    card = (folder / "README.md").read_text()
    assert "a\\|b.jsonl" in card
    assert "v001" in card


def damage(folder: Path, name: str, change: Callable[[Path], object]) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    change(folder / name)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "README.md", "manifest.json", "adapter/adapter_model.safetensors"]
)
def test_one_flipped_bit_anywhere_is_found(layout: Layout, name: str) -> None:
    folder = publish(layout)
    damage(folder, name, flip)
    assert versions.verify(folder).state is VersionState.CORRUPT


def test_parts_removed_or_added_by_hand_are_found_without_reading(layout: Layout) -> None:
    for number, (name, change, state) in enumerate(
        [
            ("model.safetensors", Path.unlink, VersionState.INCOMPLETE),
            ("manifest.json", Path.unlink, VersionState.INCOMPLETE),
            ("pytorch_model.bin", lambda path: path.write_bytes(b"x"), VersionState.CORRUPT),
            ("config.json", lambda path: path.write_bytes(b"x"), VersionState.CORRUPT),
        ],
        start=1,
    ):
        folder = publish(layout, f"v{number:03d}")
        damage(folder, name, change)
        assert versions.judge_by_looks(folder).state is state, name


def test_the_listing_goes_by_number_and_shows_what_is_gone(layout: Layout) -> None:
    for identity, parent in (("v1000", "v999"), ("v999", "v002"), ("v010", None)):
        publish(layout, identity, parent=parent)
    (layout.versions / "v1").mkdir()
    (layout.versions / ".v011.00000000.staging").mkdir()
    found = versions.listing(layout, in_use="v011")
    assert [report.id for report in found] == ["v002", "v010", "v011", "v999", "v1000"]
    assert [report.state.value for report in found] == ["incomplete", "ok", "incomplete", "ok", "ok"]
    assert versions.children(layout, "v999") == ["v1000"]


@pytest.mark.parametrize("text", ["v1", "v10", "v01", "v", "", "../v010", "v010/", "v0010"])
def test_an_id_is_exact(layout: Layout, text: str) -> None:
    publish(layout, "v010")
    assert versions.require(layout, "v010") == layout.versions / "v010"
    with pytest.raises(UsageError):
        versions.require(layout, text)


def test_a_version_under_another_name_is_not_what_it_says(layout: Layout) -> None:
    folder = publish(layout).rename(layout.versions / "v002")
    assert versions.verify(folder).state is VersionState.CORRUPT


def test_what_was_never_finished_is_removed(layout: Layout) -> None:
    staging = versions.make_staging(layout, "v001")
    (staging / "part").write_text("half")
    staging.chmod(0o555)
    publish(layout, "v002")
    assert versions.remove_staging(layout) == [staging.name]
    assert versions.identities(layout) == ["v002"]
