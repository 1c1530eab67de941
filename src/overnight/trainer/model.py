"""The model of a job: which device, which number format, which weights.

Number formats, the same in each attempt of a job:

- CPU and MPS: everything in float32.
- CUDA, ``lora``: the frozen base in bfloat16 where the GPU can, else float32; adapters and optimizer in float32;
  matrix products under bfloat16 autocast.
- CUDA, ``full``: weights and optimizer in float32, matrix products under bfloat16 autocast.
- ``qlora``: the frozen base in 4 bit (nf4, double quantisation), computing in bfloat16 on CUDA and float32 on the CPU;
  adapters and optimizer in float32. bitsandbytes knows CUDA and CPU, not MPS.

Activations are recomputed in the backward pass (gradient checkpointing) on a GPU for models of a thousand million
weights and more: it costs time and saves the memory that such models lack.

Weights are read from safetensors only. Code that lies in a model's folder is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from overnight.disk import model_folder
from overnight.domain.config import Settings
from overnight.domain.errors import ConfigError
from overnight.trainer.failures import CorruptError, DeviceGoneError, no_qlora_on_mps

RECOMPUTE_FROM_WEIGHTS = 1_000_000_000
HUB_PARTS = ["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.tiktoken"]


@dataclass(frozen=True, slots=True)
class Device:
    """Where and in which number formats a job is trained."""

    kind: str  # "cpu" | "cuda" | "mps"
    name: str
    base_dtype: Any  # torch.dtype of the weights as loaded
    has_bfloat16: bool  # matrix products run in it


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be trained, and its tokenizer."""

    model: Any
    tokenizer: Any
    weights: int


def choose_device(settings: Settings) -> Device:
    """Return the device that the settings name, or the best one there is. Raises ConfigError where it is not there."""
    wish = settings.train.device
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = wish if wish != "auto" else next(kind for kind in ("cuda", "mps", "cpu") if has[kind])
    if not has[kind]:
        raise DeviceGoneError(
            f"The device '{kind}' is not there",
            found=", ".join(name for name, is_there in has.items() if is_there),
            expected=f"a {kind} device that torch {torch.__version__} can use",
            fix="mend the driver, or set train.device to auto or cpu for later jobs",
        )
    if kind == "mps" and settings.method == "qlora":
        raise no_qlora_on_mps()
    if kind != "cuda":
        return Device(kind, kind, torch.float32, False)
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    frozen = settings.method != "full" and has_bfloat16
    return Device(kind, torch.cuda.get_device_name(0), torch.bfloat16 if frozen else torch.float32, has_bfloat16)


def plain_device(wish: str) -> Device:
    """Return the device for work that must be exact: models are float32 there. MPS knows no float64, so it is not."""
    kind = "cuda" if wish in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    return Device(kind, kind, torch.float32, False)


def be_exact(device: Device, *, threads: int) -> None:
    """Make torch give the same bits each time."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device.kind == "mps")  # many operations of MPS have none
    torch.backends.cudnn.benchmark = False


def fetch(base_model: str) -> tuple[Path, str | None]:
    """Return the folder of a base model and, of one from the Hub, its commit; downloads where it is not there yet."""
    if Path(base_model).is_absolute():
        return Path(base_model), None
    import huggingface_hub  # only here: a local model needs no network library

    folder = Path(huggingface_hub.snapshot_download(base_model, allow_patterns=HUB_PARTS))
    return folder, folder.name


def load_tokenizer(base: Path) -> Any:
    """Return the tokenizer of a base model."""
    return transformers.AutoTokenizer.from_pretrained(str(base), trust_remote_code=False, local_files_only=True)


def load(base: Path, checkpoint: Path | None, settings: Settings, device: Device, *, seed: int) -> Loaded:
    """Return the model to train: from the base, with the weights of a checkpoint where there is one.

    The random start of a new adapter hangs on ``seed`` alone.
    """
    require_true_sizes(base)
    tokenizer = load_tokenizer(base)
    transformers.set_seed(seed)
    try:
        if settings.method == "full":
            model = read_weights(base if checkpoint is None else checkpoint, device, quantized=False)
        else:
            model = read_weights(base, device, quantized=settings.method == "qlora")
            if checkpoint is None:
                model = peft.get_peft_model(model, adapter(settings))
            else:
                model = peft.PeftModel.from_pretrained(model, str(checkpoint), is_trainable=True)
                model.active_peft_config.base_model_name_or_path = str(base)  # the workspace may have been moved
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise CorruptError(
                "The weights cannot be read",
                found=str(error)[:300],
                expected="whole safetensors files",
                fix="see overnight verify; bring the base model back from its origin",
            ) from error
        raise
    mend_generation(model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return Loaded(model, tokenizer, weights)


def require_true_sizes(base: Path) -> None:
    """Refuse a base model whose config.json says what its weights cannot be, before anything is built on its word."""
    _, damage = model_folder.look(base)
    if damage is not None:
        raise ConfigError(
            "The base model cannot be what it says it is",
            found=damage,
            expected="a config.json and whole weights that belong together",
            fix="bring the base model back from its origin",
        )


def adapter(settings: Settings) -> peft.LoraConfig:
    """Return the adapter's shape as PEFT wants it."""
    return peft.LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=settings.lora.target_modules,
        task_type="CAUSAL_LM",
    )


def read_weights(folder: Path, device: Device, *, quantized: bool) -> Any:
    """Return a model as a folder holds it, in the number format of the device, or in 4 bits."""
    extra: dict[str, Any] = {}
    if quantized:
        extra["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if device.has_bfloat16 else torch.float32,
        )
        extra["device_map"] = {"": 0 if device.kind == "cuda" else device.kind}
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=device.base_dtype,
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        **extra,
    )


def mend_generation(model: Any) -> None:
    """Let a base model's generation settings be saved: some name a temperature and do not say that they sample."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    try:
        settings.validate(strict=True)
    except ValueError:
        settings.do_sample = True


def require_room(loaded: Loaded, *, longest: int, highest_token: int) -> None:
    """Refuse data that the model cannot read: longer than its positions, or with tokens it does not know."""
    config = loaded.model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise ConfigError(
            "The rows are longer than the base model can read",
            found=f"a row of {longest} tokens",
            expected=f"at most {limit} tokens (max_position_embeddings)",
            fix=f"a workspace with max_length {limit} or less",
        )
    known = loaded.model.get_input_embeddings().weight.shape[0]
    if highest_token >= known:
        raise ConfigError(
            "The tokenizer knows tokens that the base model does not",
            found=f"token {highest_token}",
            expected=f"tokens below {known} (the size of its embedding)",
            fix="use the tokenizer that belongs to the base model",
        )


def use_full_precision_adapters(model: Any) -> None:
    """Bring what is trained to float32; TRL makes the adapters of a 4-bit base bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def first_bad_tensor(model: Any) -> str | None:
    """Return the name of the first trained tensor that holds a NaN or an infinity, or None."""
    trained = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
    if not trained or bool(torch.stack([tensor.detach().isfinite().all() for _, tensor in trained]).all()):
        return None
    return next(str(name) for name, tensor in trained if not bool(tensor.detach().isfinite().all()))
