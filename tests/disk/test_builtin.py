from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from overnight.disk import builtin
from overnight.disk.layout import Layout
from overnight.domain.errors import ConfigError


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_tiny_is_made_quickly_and_small_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from overnight.disk import builtin;"
        f"builtin.make_tiny(Path({str(tmp_path / 'tiny')!r}));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    started = time.monotonic()

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    assert time.monotonic() - started < 30
    assert sum(path.stat().st_size for path in (tmp_path / "tiny").iterdir()) < 1_000_000


def test_tiny_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "a")
    builtin.make_tiny(tmp_path / "b")

    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a")["model.safetensors"] == (
        "79e69d73dbb899fffc9fd859fa5b749b0231db3eb61057a1f24e1b4dbe888c6a"
    ), "the bytes of builtin:tiny are a promise: locks and checkpoints name them"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_making_tiny_again_leaves_it_alone(tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns

    builtin.make_tiny(tmp_path / "a")

    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before


def test_any_text_survives_tinys_tokenizer_and_special_tokens_are_single(tmp_path: Path) -> None:
    builtin.make_tiny(tmp_path / "a")
    tokenizer = Tokenizer.from_file(str(tmp_path / "a" / "tokenizer.json"))
    end = json.loads((tmp_path / "a" / "config.json").read_text())["eos_token_id"]

    text = "Grüße, 世界! \x00\x7f\n\t 🦉"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.encode("<|im_end|>").ids == [end]


def test_names_are_resolved_to_folders_or_hub_ids(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "workspace")
    (layout.root / "my base").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert builtin.resolve(layout, "builtin:tiny") == str(layout.base / "tiny")
    assert builtin.resolve(layout, "builtin:smollm2-135m") == str(layout.base / "smollm2-135m")
    assert builtin.resolve(layout, str(elsewhere)) == str(elsewhere)
    assert builtin.resolve(layout, "my base") == str(layout.root / "my base")
    assert builtin.resolve(layout, "HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M"
    assert builtin.resolve(layout, "gpt2") == "gpt2"


@pytest.mark.parametrize("name", ["builtin:huge", "/not/there", "./not-there", "~/nobody/here/x", "a/b/c", "../x"])
def test_what_is_neither_there_nor_a_hub_id_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "workspace").mkdir()
    with pytest.raises(ConfigError) as caught:
        builtin.resolve(Layout(tmp_path / "workspace"), name)
    assert caught.value.fix
