"""Init: judged before anything is made, complete or repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.control import making
from overnight.disk import builtin, workspace
from overnight.domain.errors import ConfigError, OvernightError, UsageError


def init(folder: Path, base_model: str = "builtin:tiny", *assignments: str) -> making.Made:
    return making.init(
        folder, base_model=base_model, model_name=None, assignments=list(assignments), say=lambda text: None
    )


def test_a_workspace_is_complete_and_named_after_its_folder(tmp_path: Path) -> None:
    made = init(tmp_path / "mine", "builtin:tiny", "train.batch_size=4")
    values = json.loads(made.layout.config.read_text())
    assert (values["model_name"], values["base_model"], values["train"]["batch_size"]) == ("mine", "builtin:tiny", 4)
    assert values["$schema"] == "./config.schema.json"
    assert (made.layout.base / "tiny" / "model.safetensors").is_file()
    assert made.layout.database.is_file()
    assert workspace.missing_folders(made.layout) == []


@pytest.mark.parametrize(
    ("base_model", "assignments"),
    [
        ("/gone/away", []),
        ("builtin:huge", []),
        ("not a model", []),
        ("builtin:tiny", ["train.batch_size=0"]),
        ("builtin:tiny", ["nonsense=1"]),
        ("a\0b", []),
    ],
)
def test_what_is_refused_makes_nothing(tmp_path: Path, base_model: str, assignments: list[str]) -> None:
    with pytest.raises(ConfigError):
        init(tmp_path / "mine", base_model, *assignments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_as_base_model_is_kept_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builtin.make_tiny(tmp_path / "base model")
    monkeypatch.chdir(tmp_path)
    made = init(tmp_path / "mine", "base model")
    assert made.base_model == str(tmp_path / "base model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no base model"):
        init(tmp_path / "other", "empty")


def test_a_hub_id_is_kept_as_it_is(tmp_path: Path) -> None:
    assert init(tmp_path / "mine", "HuggingFaceTB/SmolLM2-135M-Instruct").base_model.startswith("HuggingFaceTB/")


def test_a_workspace_is_not_made_twice(tmp_path: Path) -> None:
    init(tmp_path / "mine")
    with pytest.raises(UsageError):
        init(tmp_path / "mine")


def test_init_that_was_cut_short_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OvernightError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(builtin, "make_tiny", fail)
        with pytest.raises(OvernightError, match="cut short"):
            init(tmp_path / "mine")
    assert init(tmp_path / "mine").layout.config.exists()
