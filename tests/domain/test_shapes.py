"""An adapter of another shape is found before anything is loaded."""

from __future__ import annotations

import pytest

from overnight.domain.shapes import Shapes, misfit

BASE: Shapes = {"model.layers.0.q_proj.weight": (128, 256), "model.norm.weight": (128,), "h.c_attn.weight": (64, 192)}


def adapter(layer: str = "model.layers.0.q_proj", *, first: tuple[int, ...], second: tuple[int, ...]) -> Shapes:
    return {
        f"base_model.model.{layer}.lora_A.weight": first, f"base_model.model.{layer}.lora_B.weight": second
    }  # fmt: skip


def test_what_fits_fits() -> None:
    assert misfit(adapter(first=(8, 256), second=(128, 8)), BASE, rank=8) is None
    assert misfit(adapter("h.c_attn", first=(8, 64), second=(192, 8)), BASE, rank=8) is None, "stored transposed"
    assert misfit(adapter("lm_head", first=(8, 64), second=(9, 8)), BASE, rank=8) is None, "tied: the base lists it not"
    assert misfit({}, BASE, rank=8) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (adapter(first=(8, 512), second=(128, 8)), "the base has 128 x 256"),
        (adapter(first=(8, 256), second=(64, 8)), "the base has 128 x 256"),
        (adapter(first=(16, 256), second=(128, 16)), "has rank 16, lora.r is 8"),
        (adapter(first=(8, 256), second=(128, 16)), "do not fit each other"),
        ({"base_model.model.x.lora_A.weight": (8, 4)}, "do not fit each other"),
    ],
)
def test_what_does_not_fit_is_named(found: Shapes, words: str) -> None:
    assert words in str(misfit(found, BASE, rank=8))
