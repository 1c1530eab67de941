"""A GGUF file is the model: loaded anew it gives the same logits, the same tokens of a text, and the same answer."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from overnight.disk import builtin  # noqa: E402
from overnight.domain.errors import ConfigError  # noqa: E402
from overnight.trainer import to_gguf  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

TEXT = "12+34? Zażółć gęślą jaźń, it's 1234 times  over.\n\tDone!"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    builtin.make_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


def change(folder: Path, name: str, **values: Any) -> None:
    """Change a JSON file of a model."""
    old = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**old, **values}))


def loaded(folder: Path, **named: Any) -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **named)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, **named)


def test_the_file_loaded_anew_is_the_same_model_and_gives_the_same_answer(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    to_gguf.convert(tiny, tmp_path / "out" / "m.gguf")
    (one, cutter), (other, other_cutter) = loaded(tiny), loaded(tmp_path / "out", gguf_file="m.gguf")
    tokens = cutter(TEXT, return_tensors="pt")["input_ids"]
    assert other_cutter(TEXT)["input_ids"] == tokens[0].tolist()
    assert other_cutter.chat_template.encode() == (tiny / "chat_template.jinja").read_bytes()
    assert (other_cutter.eos_token, other_cutter.pad_token) == ("<|im_end|>", "<|pad|>")
    with torch.no_grad():
        difference = float((one(tokens).logits - other(tokens).logits).abs().max())
        answers = [model.generate(tokens, do_sample=False, max_new_tokens=12) for model in (one, other)]
    print(f"logits differ by {difference:g}")
    assert difference == 0.0
    assert torch.equal(*answers)


@pytest.mark.parametrize(("kind", "dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)])
def test_weights_keep_their_format_and_their_bits(tiny: Path, tmp_path: Path, kind: str, dtype: Any) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in load_file(tiny / "model.safetensors").items()}
    save_file(weights, tiny / "model.safetensors")
    to_gguf.convert(tiny, tmp_path / "m.gguf")
    found = {one.name: one for one in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert found["token_embd.weight"].tensor_type.name == kind
    assert (
        found["token_embd.weight"].data.tobytes()
        == weights["model.embed_tokens.weight"].view(torch.uint8).numpy().tobytes()
    )
    assert found["output_norm.weight"].tensor_type.name == "F32"


def test_a_vocabulary_with_merges_cuts_text_as_before(tiny: Path, tmp_path: Path) -> None:
    old = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    new = Tokenizer(models.BPE())
    new.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    new.decoder = decoders.ByteLevel()
    size = old.get_vocab_size()
    alphabet = sorted(set("abcdefghijklmnopqrstuvwxyzĠ0123456789+?!.,"))
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    new.train_from_iterator([TEXT, "the thing that the other did"] * 9, trainer)
    new.save(str(tiny / "tokenizer.json"))
    (tmp_path / "out").mkdir()
    to_gguf.convert(tiny, tmp_path / "out" / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "out" / "m.gguf").fields
    assert bytes(fields["tokenizer.ggml.pre"].parts[-1]) == b"smollm"
    tokens = [bytes(fields["tokenizer.ggml.tokens"].parts[at]).decode() for at in fields["tokenizer.ggml.tokens"].data]
    known = new.get_vocab()
    assert len(tokens) == size
    assert {token: at for at, token in enumerate(tokens) if not token.startswith("[PAD")} == known
    merges = [bytes(fields["tokenizer.ggml.merges"].parts[at]).decode() for at in fields["tokenizer.ggml.merges"].data]
    assert merges == [" ".join(pair) for pair in json.loads((tiny / "tokenizer.json").read_text())["model"]["merges"]]
    assert len(merges) > 3


def test_a_head_that_is_the_embedding_is_not_written_twice(tiny: Path, tmp_path: Path) -> None:
    weights = load_file(tiny / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}, tiny / "model.safetensors"
    )
    change(tiny, "config.json", tie_word_embeddings=True)
    (tmp_path / "out").mkdir()
    to_gguf.convert(tiny, tmp_path / "out" / "m.gguf")
    (one, cutter), (other, _) = loaded(tiny), loaded(tmp_path / "out", gguf_file="m.gguf")
    tokens = cutter(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(one(tokens).logits, other(tokens).logits)


def test_the_positions_of_llama_3_are_slowed_down_as_transformers_does_it(tiny: Path, tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    }  # fmt: skip
    change(tiny, "config.json", rope_parameters=rope)
    to_gguf.convert(tiny, tmp_path / "m.gguf")
    found = {one.name: one.data for one in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    model, _ = loaded(tiny)
    head = 16
    plain = 1.0 / 10000.0 ** (torch.arange(0, head, 2).float() / head)
    slowed = plain / torch.tensor(found["rope_freqs.weight"])
    assert torch.allclose(slowed, model.model.rotary_emb.inv_freq, rtol=1e-6)
    assert not torch.allclose(plain, slowed)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("config.json", {"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ("config.json", {"quantization_config": {"bits": 4}}, "quantized"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "NFC"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}, "Unigram"),
    ],
    ids=["architecture", "positions", "quantized", "normalizer", "cut", "unigram"],
)  # fmt: skip
def test_what_would_not_be_exact_is_refused_and_named(
    tiny: Path, tmp_path: Path, name: str, values: dict[str, Any], words: str
) -> None:
    change(tiny, name, **values)
    with pytest.raises(ConfigError) as refused:
        to_gguf.convert(tiny, tmp_path / "m.gguf")
    assert words in str(refused.value.found)
    assert "export as hf" in str(refused.value.fix)


LLAMA_CPP = """
import json, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.warmup, settings.cpuparams.n_threads = sys.argv[1], 256, False, 1
asked = {"prompt": sys.argv[2], "max_tokens": 12, "temperature": 0, "ignore_eos": True}
answer = xllamacpp.Server(settings).handle_completions(asked)
answer = json.loads(answer) if isinstance(answer, str) else answer
print("ANSWER", json.dumps(answer["choices"][0]["text"]))
"""


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs llama.cpp as a package (pip install xllamacpp)")
def test_llama_cpp_gives_the_answer_that_transformers_gives(tiny: Path, tmp_path: Path) -> None:
    to_gguf.convert(tiny, tmp_path / "m.gguf")
    command = [sys.executable, "-c", LLAMA_CPP, str(tmp_path / "m.gguf"), "12+34?"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    answer = json.loads(next(line for line in told.splitlines() if "ANSWER " in line).partition("ANSWER ")[2])
    model, cutter = loaded(tiny)
    tokens = cutter("12+34?", return_tensors="pt")["input_ids"]
    expected = model.generate(tokens, do_sample=False, max_new_tokens=12, eos_token_id=-1)[0][tokens.shape[1] :]
    assert answer == cutter.decode(expected)
