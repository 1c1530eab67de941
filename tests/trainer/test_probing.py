"""Logits are computed in float64, whatever the architecture, and the model is afterwards what it was."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from overnight.trainer import probing  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]

LLAMA_LIKE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Llama", LLAMA_LIKE),
        ("Qwen2", LLAMA_LIKE),
        ("Gemma2", LLAMA_LIKE),
        ("Phi3", LLAMA_LIKE),
        ("Mixtral", {**LLAMA_LIKE, "num_local_experts": 2}),
        ("GPT2", GPT2),
    ],
)
def test_it_is_wide_while_it_computes_and_as_before_afterwards(name: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, f"{name}Config")(**settings), dtype=torch.float32
    ).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        plain = model(torch.tensor([[5, 6, 7, 8]])).logits[0]
    [found] = probing.logits(model, [[5, 6, 7, 8]], what="The model", on_probe=lambda: None)
    assert found.dtype is torch.float64
    assert not torch.equal(found.float().double(), found), "float32 somewhere on the way"
    assert float((found - plain).abs().max()) < 1e-5
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype is after[key].dtype for key in before)
