"""What an export of a version is: its formats, the files of each, and how the result is put to use, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum

ADAPTER_FOLDER = "adapter"
"""Where a version keeps the adapter that it was made of."""

MODELFILE = "Modelfile"
OURS = ("manifest.json",)
"""Files of a version that say something about this workspace, and nothing to those who use the model."""

CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)  # fmt: skip
"""ChatML as Ollama writes templates; it knows no Jinja."""

PROBE = [("system", "Be brief."), ("user", "1+1?"), ("assistant", "2"), ("user", "And 2+2?")]
PROBE_AS_CHATML = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in PROBE) + "<|im_start|>assistant\n"


class Format(StrEnum):
    """What a version can be exported as."""

    HF = "hf"  # a folder as transformers reads it
    ADAPTER = "adapter"  # the adapter alone, for the base that it was trained on
    GGUF = "gguf"  # one file for llama.cpp and Ollama


def names_of(format: Format, files: Iterable[str]) -> dict[str, str]:
    """Return which files of a version go into an export, with their names there."""
    if format is Format.ADAPTER:
        prefix = f"{ADAPTER_FOLDER}/"
        return {name: name.removeprefix(prefix) for name in files if name.startswith(prefix)}
    if format is Format.GGUF:
        return {}
    return {name: name for name in files if "/" not in name and name not in OURS}


def gguf_name(model_name: str, identity: str) -> str:
    """Return the name of a GGUF file: letters, digits and a few signs of the model's name, and the version."""
    safe = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "-" for sign in model_name)
    return f"{safe.strip('-.') or 'model'}-{identity}.gguf"


def modelfile(source: str, *, is_chatml: bool, stops: Iterable[str], context: int | None) -> str:
    """Return the Modelfile for Ollama: ``ollama create NAME -f Modelfile`` beside it."""
    lines = [f"FROM ./{source}" if source else "FROM ."]
    if is_chatml:
        lines.append(f'TEMPLATE """{CHATML}"""')
    else:
        lines.append(
            "# The chat template is in the model itself. Ollama writes templates in another language and takes"
        )
        lines.append("# over the ones that it knows; where answers look wrong, add TEMPLATE here.")
    lines += [f"PARAMETER stop {json.dumps(stop)}" for stop in stops]
    if context is not None:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def how_to_use(format: Format, folder: str, *, model_name: str, source: str, base_model: str) -> list[str]:
    """Return the commands that put an export to use."""
    path = _quoted(folder)
    if format is Format.HF:
        return [
            f"vllm serve {path} --served-model-name {_quoted(model_name)}",
            f"ollama create {_quoted(model_name)} -f {_quoted(f'{folder}/{MODELFILE}')}",
        ]
    if format is Format.ADAPTER:
        return [f"vllm serve {_quoted(base_model)} --enable-lora --lora-modules {_quoted(model_name)}={path}"]
    return [
        f"ollama create {_quoted(model_name)} -f {_quoted(f'{folder}/{MODELFILE}')}",
        f"llama-cli -m {_quoted(f'{folder}/{source}')}",
    ]


def _quoted(text: str) -> str:
    plain = text and all(sign.isalnum() or sign in "-_./:@+," for sign in text)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"
