"""Where the weights of a merge come from: base and adapter joined by PEFT, one layer at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft.tuners.lora import LoraLayer

from overnight.disk.tensor_headers import Tensor
from overnight.domain.errors import ConfigError
from overnight.trainer import model as models
from overnight.trainer.failures import CorruptError, NonFiniteError

FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ADAPTER = "default"


def load_model(folder: Path, device: models.Device, *, quantized: bool = False) -> Any:
    """Return a model in float32 from a folder, ready to be asked; its code, where it has any, is never run."""
    try:
        model = models.read_weights(folder, device, quantized=quantized)
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise CorruptError(
                f"The weights in {folder} cannot be read", found=str(error)[:300], expected="whole safetensors files",
                fix="bring the base model back from its origin", code="damaged_weights",
            ) from error  # fmt: skip
        raise
    return (model if quantized else model.to(device.kind)).eval()


@dataclass
class Joined:
    """Base and adapter, and the layers that the adapter changes, by the names that the base's files use."""

    model: Any  # peft.PeftModel
    layers: dict[str, Any]
    quantized: bool
    formats: set[str] = field(default_factory=set)  # of what was merged so far

    def replacement(self, name: str, tensor: Tensor) -> memoryview | None:
        """Return a merged tensor in the format of the base's file, or None where nothing changes it."""
        layer = self.layers.get(name)
        if layer is None:
            return None
        merged = self._merge(layer)
        if tuple(merged.shape) != tensor.shape or tensor.kind not in FORMATS:
            raise ConfigError(
                f"The base model's tensor '{name}' is stored in a way that cannot take a merged one",
                found=f"{tensor.kind} {tensor.shape}", expected=f"{' or '.join(FORMATS)} {tuple(merged.shape)}",
                code="layer_format",
            )  # fmt: skip
        rounded = merged.to(FORMATS[tensor.kind]).cpu().contiguous()
        if not bool(rounded.isfinite().all()):
            raise NonFiniteError(
                "The merged weights are no numbers", found=f"NaN or infinity in '{name}' as {tensor.kind}",
                expected="finite weights", fix="publish an earlier checkpoint", code="not_finite",
            )  # fmt: skip
        self.formats.add(tensor.kind)
        return memoryview(rounded.reshape(-1).view(torch.uint8).numpy())

    def _merge(self, layer: Any) -> Any:
        """Merge one layer in float32 and return its weights."""
        if not isinstance(layer, LoraLayer):
            return _spread(layer.weight)
        base = layer.get_base_layer()
        if self.quantized:
            return _spread(base.weight) + layer.get_delta_weight(ADAPTER).float()
        try:
            layer.merge(safe_merge=True, adapter_names=[ADAPTER])
        except ValueError as error:
            raise NonFiniteError(
                "The merged weights are no numbers", found=str(error), expected="finite weights",
                fix="publish an earlier checkpoint", code="not_finite",
            ) from error  # fmt: skip
        return base.weight.data


def _spread(weight: Any) -> Any:
    """Return 4-bit weights as numbers again: what the adapter was trained against."""
    import bitsandbytes  # only here: other methods need it not

    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()


def join(base: Path, checkpoint: Path, device: models.Device, tensors: dict[str, Tensor], *, quantized: bool) -> Joined:
    """Return base and adapter joined. Raises ConfigError where the base's files name their layers in another way."""
    model = load_model(base, device, quantized=quantized)
    prefix = f"{model.base_model_prefix}."
    model = peft.PeftModel.from_pretrained(model, str(checkpoint), adapter_name=ADAPTER, is_trainable=False).eval()
    layers: dict[str, Any] = {}
    for name, module in model.base_model.model.named_modules():
        is_changed = isinstance(module, LoraLayer) or (quantized and _is_quantized(module, name))
        if not is_changed:
            continue
        names = [f"{name}.weight", f"{name}.weight".removeprefix(prefix)]
        known = next((one for one in names if one in tensors), None)
        if known is None:
            raise ConfigError(
                f"The base model's files do not name the layer '{name}'", found="other names",
                expected=f"a tensor '{names[0]}'",
                fix="a base model that is stored as transformers names its layers", code="layer_names",
            )  # fmt: skip
        layers[known] = module
    return Joined(model, layers, quantized)


def _is_quantized(module: Any, name: str) -> bool:
    """Return whether a layer without an adapter was 4-bit in training: then it is that in the version too."""
    weight = getattr(module, "weight", None)
    return getattr(weight, "quant_state", None) is not None and not name.endswith(".base_layer")


def tokenizer_of(folder: Path) -> Any:
    """Return the tokenizer of a model folder."""
    return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
