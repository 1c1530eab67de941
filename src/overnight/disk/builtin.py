"""A base model that needs no network: ``builtin:tiny`` is made on the spot.

``builtin:tiny`` is a random Llama of two layers with a byte-level tokenizer and the ChatML template. Its bytes are the
same on every machine and with every version of numpy: the weights come from a hash stream and exact arithmetic, not
from a random generator.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from overnight.disk import files
from overnight.disk.base_models import FOLDERS, SMOLLM2, TINY, resolve

__all__ = ["FOLDERS", "SMOLLM2", "TINY", "make_tiny", "resolve"]

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LAYERS, HIDDEN, INNER, HEADS, KEY_HEADS, CONTEXT = 2, 64, 128, 4, 2, 4096
SPREAD = 0.12
"""Half the width of the uniform distribution of the random weights."""


def make_tiny(folder: Path) -> None:
    """Make ``builtin:tiny`` in a folder, complete or not at all; nothing is done where it is there already.

    Raises DiskError.
    """
    if (folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
        return
    hidden = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    files.make_directory(hidden)
    vocabulary = _vocabulary()
    files.write_durably(hidden / "tokenizer.json", _tokenizer(vocabulary).to_str(pretty=True).encode("utf-8"))
    files.write_durably(hidden / "chat_template.jinja", CHAT_TEMPLATE.encode("utf-8"))
    files.write_durably(hidden / "tokenizer_config.json", _json(_tokenizer_config()))
    files.write_durably(hidden / "config.json", _json(_config(vocabulary)))
    files.write_durably(hidden / "generation_config.json", _json(_generation_config(vocabulary)))
    files.write_durably(hidden / "model.safetensors", save(_weights(len(vocabulary)), metadata={"format": "pt"}))
    try:
        files.rename_durably(hidden, folder)
    except OSError as error:
        raise files.disk_error(error, folder) from error


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _vocabulary() -> dict[str, int]:
    return {
        token: number for number, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), PAD, START, END])
    }


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)])
    return tokenizer


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "additional_special_tokens": [START],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }


def _config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": vocabulary[END],
        "pad_token_id": vocabulary[PAD],
        "torch_dtype": "float32",
    }


def _generation_config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {"eos_token_id": vocabulary[END], "pad_token_id": vocabulary[PAD]}


def _weights(vocabulary_size: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    head = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary_size, HIDDEN),
        "lm_head.weight": (vocabulary_size, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (HIDDEN,),
            f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
            f"{layer}.self_attn.q_proj.weight": (HEADS * head, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": (KEY_HEADS * head, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": (KEY_HEADS * head, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": (HIDDEN, HEADS * head),
            f"{layer}.mlp.gate_proj.weight": (INNER, HIDDEN),
            f"{layer}.mlp.up_proj.weight": (INNER, HIDDEN),
            f"{layer}.mlp.down_proj.weight": (HIDDEN, INNER),
        }
    return {name: _tensor(name, shape) for name, shape in sorted(shapes.items())}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return norms of one, and everything else uniform in +-SPREAD, drawn from a hash of the name."""
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    count = shape[0] * shape[1]
    stream = blake3(f"overnight {TINY} {name}".encode()).digest(length=2 * count)
    whole = np.frombuffer(stream, dtype="<i2").astype(np.float32)
    return (whole * np.float32(SPREAD / 32768)).reshape(shape)
