"""Logits on probe texts: how two models are compared, under settings that give the same bits each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from overnight.domain.merge import PROBE_TOKENS
from overnight.trainer.failures import NonFiniteError

Tokens = list[list[int]]


def encode(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    """Return the first tokens of each text; a text without any is left out."""
    encoded = [
        tokenizer(text.encode("utf-8", "replace").decode(), add_special_tokens=False)["input_ids"] for text in texts
    ]
    return [tokens[:PROBE_TOKENS] for tokens in encoded if tokens]


def logits(model: Any, probes: Tokens, *, what: str, on_probe: Callable[[], None]) -> list[Any]:
    """Return the logits of each probe in float32 on the CPU. Raises NonFiniteError where they are no numbers."""
    found = []
    with torch.inference_mode():
        for tokens in probes:
            inputs = torch.tensor([tokens], device=model.device)
            result = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False).logits[0]
            if not bool(result.isfinite().all()):
                raise NonFiniteError(
                    f"{what} gives no numbers", found="NaN or infinity among its logits", expected="finite logits",
                    fix="publish an earlier checkpoint", code="not_finite",
                )  # fmt: skip
            found.append(result.float().cpu())
            on_probe()
    return found


def difference(ones: list[Any], others: list[Any]) -> float:
    """Return the largest absolute difference between two lists of logits."""
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))
