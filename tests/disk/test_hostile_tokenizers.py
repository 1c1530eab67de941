"""Tokenizer files that want endless time or memory: refused, or told; never a process that dies of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.disk.builtin import make_tiny
from overnight.disk.tokenizer import load_encoder
from overnight.domain.errors import DataError
from overnight.domain.rows import Text

Bomb = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


def spoil(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_encoder(folder)
    return str(caught.value.found)


def replaces(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


@pytest.mark.parametrize(
    ("normalizer", "told"),
    [
        (replaces("b" * 1_000_000), "characters of one"),
        ({"type": "Sequence", "normalizers": [replaces("aa")] * 40}, "characters of one"),
        ({"type": "Replace", "pattern": {"Regex": ""}, "content": "b" * 1000}, "characters of one"),
        ({"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 5000}, "times"),
    ],
)
def test_a_normalizer_that_blows_texts_up_is_refused(folder: Path, normalizer: dict[str, Any], told: str) -> None:
    spoil(folder, normalizer=normalizer)
    assert told in refusal(folder)


def test_a_token_with_an_absurd_number_is_refused_before_a_table_is_made(folder: Path) -> None:
    value = json.loads((folder / "tokenizer.json").read_text())
    added = [*value["added_tokens"], {**value["added_tokens"][0], "id": 4_000_000_001, "content": "<big>"}]
    spoil(folder, added_tokens=added)
    assert "4000000001" in refusal(folder)
    value["model"]["vocab"]["zzz"] = 4_000_000_000
    (folder / "tokenizer.json").write_text(json.dumps(value))
    assert "4000000000" in refusal(folder)


def test_a_file_that_is_nested_or_large_without_end_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"a":' * 100_000)
    assert "cannot be read" in refusal(folder)
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(1 << 40)  # a hole that takes no disk
    assert "is too large" in refusal(folder)


def test_a_pattern_that_backtracks_without_end_gives_up_and_is_told(folder: Path) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "^(a+)+$"}, "behavior": "Isolated", "invert": False}
    spoil(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": [pattern, {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]})  # fmt: skip
    encoder = load_encoder(folder)
    assert encoder.encode(Text("bb"), max_length=64, supervise="assistant").counts.total == 3
    with pytest.raises(DataError) as caught:
        encoder.encode(Text("a" * 60 + "!"), max_length=64, supervise="assistant")
    assert caught.value.code == "tokenizer_gave_up"


def test_modest_rewriting_is_taken(folder: Path) -> None:
    rules = [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
             {"type": "Prepend", "prepend": "\u2581"}]  # fmt: skip
    spoil(folder, normalizer={"type": "Sequence", "normalizers": rules})
    load_encoder(folder)
