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


def load_model(folder: Path, device: models.Device) -> Any:
    """Return a model in float32 from a folder, ready to be asked; its code, where it has any, is never run."""
    return _read(folder, device, quantized=False).to(device.kind).eval()


def _read(folder: Path, device: models.Device, *, quantized: bool) -> Any:
    try:
        return models.read_weights(folder, device, quantized=quantized)
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise CorruptError(
                f"The weights in {folder} cannot be read",
                found=str(error)[:300],
                expected="whole safetensors files",
                fix="bring the base model back from its origin",
                code="damaged_weights",
            ) from error
        raise


def _spread_out(model: Any) -> list[str]:
    """Make each 4-bit layer a plain one that holds the numbers of its 4 bits, in float32; return their names."""
    import bitsandbytes  # only here: other methods need it not

    names = [name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    for name in names:
        layer = model.get_submodule(name)
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = torch.nn.Parameter(layer.bias.data.float(), requires_grad=False)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, plain)
    for marked in ("is_loaded_in_4bit", "is_quantized"):  # PEFT looks at them
        if hasattr(model, marked):
            setattr(model, marked, False)
    model.config.__dict__.pop("quantization_config", None)
    model.__dict__.pop("hf_quantizer", None)
    return names


@dataclass
class Joined:
    """Base and adapter, and the layers that the adapter changes, by the names that the base's files use."""

    model: Any  # peft.PeftModel
    layers: dict[str, Any]
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
        """Merge one layer and return its weights in float32."""
        if not isinstance(layer, LoraLayer):
            return layer.weight.data  # 4-bit in training, and without an adapter
        try:
            layer.merge(safe_merge=True, adapter_names=[ADAPTER])
        except ValueError as error:
            raise NonFiniteError(
                "The merged weights are no numbers",
                found=str(error),
                expected="finite weights",
                fix="publish an earlier checkpoint",
                code="not_finite",
            ) from error
        return layer.get_base_layer().weight.data


def join(base: Path, checkpoint: Path, device: models.Device, tensors: dict[str, Tensor], *, quantized: bool) -> Joined:
    """Return base and adapter joined. Raises ConfigError where the base's files name their layers in another way."""
    model = _read(base, device, quantized=quantized)
    spread = set(_spread_out(model)) if quantized else set()
    model, prefix = model.to(device.kind), f"{model.base_model_prefix}."
    model = peft.PeftModel.from_pretrained(model, str(checkpoint), adapter_name=ADAPTER, is_trainable=False).eval()
    layers: dict[str, Any] = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            _widen_adapter(module)
        elif name not in spread:
            continue
        names = [f"{name}.weight", f"{name}.weight".removeprefix(prefix)]
        known = next((one for one in names if one in tensors), None)
        if known is None:
            raise ConfigError(
                f"The base model's files do not name the layer '{name}'",
                found="other names",
                expected=f"a tensor '{names[0]}'",
                fix="use a base model that is stored as transformers names its layers",
                code="layer_names",
            )
        layers[known] = module
    return Joined(model, layers)


def _widen_adapter(layer: Any) -> None:
    """Let an adapter compute in float64: what is added to the weights is rounded once, with them."""
    for part in layer.adapter_layer_names:
        module = getattr(layer, part)
        if isinstance(module, torch.nn.Module):
            module.double()


def tokenizer_of(folder: Path) -> Any:
    """Return the tokenizer of a model folder."""
    return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
