"""Files of a model's folder: found as transformers finds them, and written anew with some tensors replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overnight.disk import builtin, files, model_files
from overnight.domain.errors import ConfigError

TENSORS = {"b": np.arange(6, dtype=np.float32), "a": np.ones((2, 3), dtype=np.float16)}


def test_weights_written_anew_without_a_change_have_the_same_bytes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors", metadata={"format": "pt"})
    seen: list[int] = []
    done = model_files.rewrite(
        tmp_path / "old.safetensors", tmp_path / "new.safetensors", lambda name, tensor: None,
        on_tensor=lambda: seen.append(1),
    )  # fmt: skip
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "old.safetensors").read_bytes()
    assert (done.blake3, done.changed, len(seen)) == (files.blake3_of(tmp_path / "old.safetensors"), 0, 2)


def test_a_replaced_tensor_is_another_and_the_rest_stays(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors")
    new = np.full(6, 7, dtype=np.float32)
    done = model_files.rewrite(
        tmp_path / "old.safetensors", tmp_path / "new.safetensors",
        lambda name, tensor: new.tobytes() if name == "b" else None, on_tensor=lambda: None,
    )  # fmt: skip
    found = load_file(tmp_path / "new.safetensors")
    assert np.array_equal(found["b"], new)
    assert np.array_equal(found["a"], TENSORS["a"])
    assert (done.blake3, done.changed) == (files.blake3_of(tmp_path / "new.safetensors"), 1)


def test_a_replacement_of_another_size_is_refused(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors")
    with pytest.raises(ValueError, match="in place of 24"):
        model_files.rewrite(
            tmp_path / "old.safetensors", tmp_path / "new.safetensors",
            lambda name, tensor: b"12" if name == "b" else None, on_tensor=lambda: None,
        )  # fmt: skip


def test_what_stands_beside_the_weights_is_found_and_ours_is_left_out(tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "tiny")
    (tmp_path / "tiny" / "manifest.json").write_text("{}")
    (tmp_path / "tiny" / "README.md").write_text("notes")
    assert model_files.weights_of(tmp_path / "tiny") == ["model.safetensors"]
    assert model_files.companions_of(tmp_path / "tiny") == [
        "chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "index", [None, "{", '{"weight_map": {"a": "gone.safetensors"}}', '{"weight_map": {"a": "../b"}}']
)
def test_weights_that_are_not_all_there_are_refused(tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / model_files.INDEX).write_text(index)
    with pytest.raises(ConfigError, match="not all there"):
        model_files.weights_of(tmp_path)


def test_an_index_names_the_files(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors"):
        save_file({name[0]: TENSORS["b"]}, tmp_path / name)
    places = {"o": "one.safetensors", "t": "two.safetensors"}
    (tmp_path / model_files.INDEX).write_text(json.dumps({"weight_map": places}))
    assert model_files.weights_of(tmp_path) == ["one.safetensors", "two.safetensors"]
    assert set(model_files.headers_of(tmp_path)) == {"o", "t"}
