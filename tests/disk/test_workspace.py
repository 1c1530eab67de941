"""Making and opening a workspace: only init makes trees, and it never makes one over something that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.disk import workspace
from overnight.disk.layout import Layout
from overnight.domain.errors import UsageError

VALUES = {"model_name": "m", "base_model": "b"}


def made(root: Path) -> Layout:
    layout = workspace.new_layout(root)
    workspace.create(layout)
    layout.database.touch()
    workspace.finish(layout, VALUES)
    return layout


def test_a_made_workspace_is_opened_from_a_link_and_has_every_folder(tmp_path: Path) -> None:
    layout = made(tmp_path / "a space ü")
    (tmp_path / "link").symlink_to(layout.root)
    assert workspace.open_workspace(tmp_path / "link") == layout
    assert workspace.missing_folders(layout) == []


@pytest.mark.parametrize("name", ["missing", "empty", "file", "nul\0", "x" * 300])
def test_what_is_no_workspace_is_refused_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError) as caught:
        workspace.open_workspace(tmp_path / name)
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_workspace_is_never_made_twice(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(UsageError, match="is a workspace already"):
        workspace.new_layout(tmp_path)


def test_a_workspace_whose_settings_are_gone_is_still_one(tmp_path: Path) -> None:
    layout = made(tmp_path)
    layout.checkpoint(5).mkdir()
    layout.config.unlink()
    assert workspace.open_workspace(tmp_path) == layout
    with pytest.raises(UsageError, match="is a workspace already"):
        workspace.new_layout(tmp_path)


def test_a_half_made_workspace_is_made_again(tmp_path: Path) -> None:
    layout = workspace.new_layout(tmp_path)
    workspace.create(layout)
    layout.database.touch()
    assert made(tmp_path).config.exists()


def test_other_peoples_folders_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "precious").touch()
    with pytest.raises(UsageError, match="holds something else"):
        workspace.new_layout(tmp_path)


def test_a_loop_of_links_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UsageError):
        workspace.open_workspace(tmp_path / "a")
