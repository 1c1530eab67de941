"""Logits on probe texts: how two models are compared, under settings that give the same bits each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

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
    """Return the logits of each probe on the CPU. Raises NonFiniteError where they are no numbers.

    They are computed in float64 from the weights as they are: float32 arithmetic alone makes two ways to compute the
    same logits differ by 1e-4 in a model of 30 layers, and would hide what is to be measured.
    """
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the quick ways of mixtures of experts know no float64
    found = []
    with torch.no_grad(), _in_double(model):
        for tokens in probes:
            inputs = torch.tensor([tokens], device=model.device)
            result = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False).logits[0]
            if not bool(result.isfinite().all()):
                raise NonFiniteError(
                    f"{what} gives no numbers",
                    found="NaN or infinity among its logits",
                    expected="finite logits",
                    fix="publish an earlier checkpoint",
                    code="not_finite",
                )
            found.append(result.double().cpu())
            on_probe()
    return found


@contextmanager
def _in_double(model: Any) -> Iterator[None]:
    """Let each layer compute in float64; its weights are widened while it works only, so that one is wide at a time."""
    hooks = []
    for module in model.modules():
        own = next((one for one in module.parameters(recurse=False) if one.is_floating_point()), None)
        if own is not None and own.dtype is not torch.float64:
            hooks.append(module.register_forward_pre_hook(lambda module, inputs: _widen(module, torch.float64)))
            hooks.append(
                module.register_forward_hook(lambda module, inputs, output, dtype=own.dtype: _widen(module, dtype))
            )
    try:
        with _StayDouble():
            yield
    finally:
        for hook in hooks:
            hook.remove()


_NARROWING = (torch.Tensor.to, torch.Tensor.softmax, torch.softmax, torch.nn.functional.softmax)
"""What models call with float32; ``Tensor.type``, by which layers are narrowed again, is none of them."""


class _StayDouble(TorchFunctionMode):  # type: ignore[misc]  # torch is not looked into
    """Let what is float64 stay it: norms and softmax are written to compute in float32 whatever comes in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype is torch.float64:
            if func is torch.Tensor.float:
                return args[0]
            if func in _NARROWING:
                args = tuple(torch.float64 if one is torch.float32 else one for one in args)
                kwargs = {name: torch.float64 if one is torch.float32 else one for name, one in kwargs.items()}
        return func(*args, **kwargs)


def _widen(module: Any, dtype: Any) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.data = parameter.data.type(dtype)


def difference(ones: list[Any], others: list[Any]) -> float:
    """Return the largest absolute difference between two lists of logits."""
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))
