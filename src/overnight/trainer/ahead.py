"""What a job imports, imported ahead of it: the libraries put much off until it is used for the first time.

Only modules are loaded and small configuration files read: no tensor is made, no device is asked for, no random number
is spent. Whatever goes wrong here goes wrong again, and is told, when the job does it.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path

import peft
import transformers
import trl

import overnight.trainer.fit  # noqa: F401  (all that a job imports at once)

PUT_OFF = (
    "huggingface_hub.utils._telemetry",
    "numpy.ctypeslib",
    "peft.utils.transformers_weight_conversion",
    "safetensors.numpy",
    "torch.profiler._cupti_monitor",
    "torch.utils.serialization",
    "transformers.integrations.integration_utils",
    "transformers.integrations.liger",
    "transformers.integrations.neftune",
    "transformers.modelcard",
    "transformers.trainer_optimizer",
    "trl.kernels.chunked_logprob",
)
"""Modules that a job was seen to import while it ran; one that is gone in another version is passed over."""


def load(base_model: str) -> None:
    """Import what a job on this base model imports."""
    for library, names in (
        (trl, ("SFTTrainer", "SFTConfig", "pack_dataset")),
        (peft, ("PeftModel", "LoraConfig", "get_peft_model")),
        (transformers, ("Trainer", "AutoConfig", "AutoTokenizer", "AutoModelForCausalLM", "BitsAndBytesConfig")),
    ):
        for name in names:
            getattr(library, name)
    for name in PUT_OFF:
        with contextlib.suppress(ImportError):
            import_module(name)
    if Path(base_model).is_absolute():
        with contextlib.suppress(Exception):
            load_architecture(base_model)


def load_architecture(base_model: str) -> None:
    """Import the code of a local model's architecture, and build the table by which weights are renamed."""
    config = transformers.AutoConfig.from_pretrained(base_model, trust_remote_code=False, local_files_only=True)
    assert transformers.AutoModelForCausalLM._model_mapping[type(config)]
    import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping(config.model_type)
