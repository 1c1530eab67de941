"""Whether an adapter fits its base: each pair of small matrices against the layer that it changes."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX, FIRST, SECOND = "base_model.model.", ".lora_A.weight", ".lora_B.weight"

Shapes = Mapping[str, tuple[int, ...]]


def misfit(adapter: Shapes, base: Shapes, *, rank: int | None) -> str | None:
    """Return the first pair that does not fit, in words, or None; a layer that the base lists not is passed over."""
    for name, (inner, *rest) in ((key, shape) for key, shape in sorted(adapter.items()) if shape):
        if not name.endswith(FIRST) or len(rest) != 1:
            continue
        layer = name.removesuffix(FIRST)
        second = adapter.get(layer + SECOND)
        if second is None or len(second) != 2 or second[1] != inner:
            return f"{layer}: its two matrices do not fit each other ({(inner, *rest)} and {second})"
        if rank is not None and inner != rank:
            return f"{layer} has rank {inner}, lora.r is {rank}"
        weight = base.get(layer.removeprefix(PREFIX) + ".weight")
        if weight is not None and sorted(weight) != sorted((second[0], rest[0])):  # some layers are stored transposed
            return f"{layer} changes a layer of {second[0]} x {rest[0]}, the base has {' x '.join(map(str, weight))}"
    return None
