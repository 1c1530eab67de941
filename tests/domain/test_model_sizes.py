"""A config.json is held against the weights before anything is built on its word."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.domain.model_sizes import absurdity

SHAPES = {"embed": (1000, 64), "head": (1000, 64), **{f"layers.{n}.w": (64, 64) for n in range(8)}}
TRUE = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 8, "max_position_embeddings": 131072,
        "tie_word_embeddings": False, "rope_theta": 1e6, "text_config": {"num_hidden_layers": 8}}  # fmt: skip


def test_a_true_one_passes() -> None:
    assert absurdity(TRUE, SHAPES) is None
    assert absurdity({**TRUE, "vocab_size": 8000, "hidden_size": 128}, SHAPES) is None, "weights may be packed"
    assert absurdity({**TRUE, "vocab_size": 2**40}, {}) is None, "nothing to hold it against"


@pytest.mark.parametrize(
    "lie",
    [
        {"vocab_size": 2**40},
        {"vocab_size": 200_000, "hidden_size": 64_000},
        {"num_hidden_layers": 10**9},
        {"n_layer": 10**9},
        {"hidden_size": 2**30},
        {"intermediate_size": 2**40},
        {"num_attention_heads": 2**40},
        {"max_position_embeddings": 2**40},
        {"n_positions": 2**40},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"text_config": {"vocab_size": 200_000, "hidden_size": 64_000}},
    ],
)
def test_a_size_that_the_weights_cannot_have_is_named(lie: dict[str, Any]) -> None:
    told = absurdity({**TRUE, **lie}, SHAPES)
    assert told is not None
    assert told.startswith("config.json says")
