from __future__ import annotations

import os
from pathlib import Path

import pytest

from overnight.disk import builtin, files, fingerprints
from overnight.domain.errors import ConfigError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    builtin.make_tiny(tmp_path / "base")
    return tmp_path / "base"


def test_the_fingerprint_is_the_same_for_a_copy_and_another_for_any_changed_file(base: Path, tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "copy")
    first = fingerprints.of_folder(base)
    assert fingerprints.of_folder(tmp_path / "copy") == first

    for path in sorted(base.iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert fingerprints.of_folder(base) != first, path.name
        path.write_bytes(data)
    assert fingerprints.of_folder(base) == first


def test_a_note_beside_the_model_changes_nothing(base: Path) -> None:
    first = fingerprints.of_folder(base)
    (base / "README.md").write_text("notes")
    (base / ".DS_Store").write_text("x")
    assert fingerprints.of_folder(base) == first


def test_an_untouched_file_is_not_read_again(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "fingerprints.json"
    first = fingerprints.of_folder(base, memory=memory)
    read: list[str] = []
    really = files.blake3_of
    monkeypatch.setattr(files, "blake3_of", lambda path: read.append(path.name) or really(path))

    assert fingerprints.of_folder(base, memory=memory) == first
    assert read == []

    (base / "config.json").write_bytes((base / "config.json").read_bytes() + b" ")
    assert fingerprints.of_folder(base, memory=memory) != first
    assert read == ["config.json"]


def test_a_link_to_another_model_is_another_model(base: Path, tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text("{}")
    link, memory = tmp_path / "link", tmp_path / "memory.json"
    link.symlink_to(base)
    first = fingerprints.of_folder(link, memory=memory)
    assert first == fingerprints.of_folder(base)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    assert fingerprints.of_folder(link, memory=memory) != first


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 1, "files": {"a": 5}}', "\x00"])
def test_a_damaged_memory_costs_time_only(base: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "memory").write_text(text)
    assert fingerprints.of_folder(base, memory=tmp_path / "memory") == fingerprints.of_folder(base)


def test_a_pipe_in_place_of_a_file_is_refused_not_waited_on(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    os.mkfifo(base / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        fingerprints.of_folder(base)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        fingerprints.of_folder(tmp_path)
