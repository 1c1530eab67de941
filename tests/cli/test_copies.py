"""versions backups and versions restore, as they are typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import commit_steps, corrupt
from overnight.disk import backups
from overnight.disk.layout import Layout

Run = Callable[..., Any]


@pytest.fixture
def place(layout: Layout, tmp_path: Path) -> Path:
    folder = tmp_path / "second"
    folder.mkdir()
    commit_steps(layout, 5, 40)
    backups.open_place(layout, folder, known=None, model_name="m", now=1.0)
    for step in (5, 40):
        backups.store(layout, folder, f"checkpoint-{step}")
    return folder


def test_without_a_second_place_it_says_how_to_name_one(inside: Run) -> None:
    said = inside("versions", "backups")
    assert said.code == 2
    assert "backup.path" in said.err


def test_a_relative_second_place_is_refused(inside: Run) -> None:
    said = inside("config", "set", "backup.path", "copies")
    assert said.code == 78
    assert "absolute" in said.err


def test_copies_are_listed_and_a_damaged_one_is_found_by_reading(inside: Run, place: Path) -> None:
    assert inside("config", "set", "backup.path", str(place)).code == 0
    said = inside("versions", "backups", "--verify", "--json")
    assert (said.code, said.json["ok"]) == (0, True)
    assert [copy["name"] for copy in said.json["copies"]] == ["checkpoint-40", "checkpoint-5"]
    assert all(copy["verified"] for copy in said.json["copies"])
    corrupt(place / "checkpoints" / "checkpoint-5")
    said = inside("versions", "backups", "--verify")
    assert said.code == 1
    assert "differs" in said.out


def test_a_lost_checkpoint_is_brought_back_from_a_place_that_is_named(inside: Run, place: Path, layout: Layout) -> None:
    shutil.rmtree(layout.checkpoint(40))
    said = inside("versions", "restore", "checkpoint-40", "--from", str(place), "--json")
    assert (said.code, said.json["ok"], said.json["changed"]) == (0, True, True)
    assert inside("verify", "--json").json["resume_from"]["step"] == 40
    again = inside("versions", "restore", "checkpoint-40", "--from", str(place))
    assert again.code == 0
    assert "nothing was changed" in again.out
    back = inside("versions", "restore", "checkpoint-5", "--from", str(place))
    assert back.code == 0, "it is here already"
    shutil.rmtree(layout.checkpoint(5))
    refused = inside("versions", "restore", "checkpoint-5", "--from", str(place))
    assert refused.code == 1
    assert "--set-newer-aside" in refused.err
