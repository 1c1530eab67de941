"""Whether a model's config.json can be true of its weights: nothing is built or allocated on its word alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

PACKED = 16
"""Weights that may be packed into one stored number; a generous bound, quantized formats pack eight."""

POSITIONS_LIMIT = 1 << 31
LAYERS = ("layers", "layer", "blocks")
"""Endings of keys that count layers."""

WIDTHS = frozenset(
    {
        "vocab_size", "hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim",
        "intermediate_size", "n_inner", "d_ff", "ffn_dim", "head_dim", "num_attention_heads", "n_head", "num_heads",
        "num_key_value_heads", "num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size",
        "q_lora_rank", "kv_lora_rank",
    }
)  # fmt: skip
"""Keys that each say how wide some weight is."""


def absurdity(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the first size that these weights cannot have, in words, or None; ``shapes`` come from their files."""
    if not shapes:
        return None
    stored = PACKED * sum(prod(shape) for shape in shapes.values())
    for path, value in _numbers(config):
        key = path.rpartition(".")[2]
        if key.rpartition("_")[2] in LAYERS and value > len(shapes):
            return f"config.json says {path} {value}, its weights are {len(shapes)} tensors"
        if key in WIDTHS and value > stored:
            return f"config.json says {path} {value}, which its weights are too few for"
        if "position" in key and value > POSITIONS_LIMIT:
            return f"config.json says {path} {value}"
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        words, width = (
            part.get("vocab_size"),
            next((part[key] for key in ("hidden_size", "n_embd", "d_model") if key in part), None),
        )
        if isinstance(words, int) and isinstance(width, int) and words * width > stored:
            return f"config.json says {words} tokens of {width} numbers each, which its weights are too few for"
    return None


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a configuration and of its parts, each with its path."""
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield str(key), value
        elif isinstance(value, dict):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items()
                        if isinstance(item, int) and not isinstance(item, bool))  # fmt: skip
