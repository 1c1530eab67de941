"""A tokenizer.json as GGUF holds a vocabulary: byte-level BPE, and llama.cpp's name for the way it cuts text.

What llama.cpp would cut in another way is refused: a model that meets other tokens than it was trained on is worse
than none, and nobody sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.domain.errors import ConfigError

GPT2 = {"type": "ByteLevel", "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything of a tokenizer that a GGUF file holds."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    cut: str  # llama.cpp's name for the way text is cut before the merges
    special: dict[str, int]  # "bos", "eos", "pad", "unk"
    begins_with_bos: bool
    chat_template: str | None


def read(folder: Path, *, size: int) -> Vocabulary:
    """Return the vocabulary of a model folder, of the size of its embedding. Raises ConfigError where it cannot be."""
    value = files.read_json(folder / "tokenizer.json")
    settings = files.read_json(folder / "tokenizer_config.json")
    model = value["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise unfit(
            f"{model.get('type')}{' with byte fallback' if model.get('byte_fallback') else ''}", "byte-level BPE"
        )
    if value.get("normalizer") not in (None, {}):
        raise unfit(f"a normalizer ({value['normalizer'].get('type')})", "text taken as it is")
    merges = [one if isinstance(one, str) else " ".join(one) for one in model.get("merges", [])]
    known: dict[int, tuple[str, int]] = {number: (token, NORMAL) for token, number in model["vocab"].items()}
    for added in value.get("added_tokens", []):
        known[int(added["id"])] = (added["content"], CONTROL if added.get("special") else USER_DEFINED)
    highest = max(known)
    if highest >= size:
        raise unfit(f"token {highest}", f"tokens below {size}, the size of the embedding")
    entries = [known.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    numbers = {token: number for number, (token, _) in known.items()}
    special = {
        name: numbers[text]
        for name in ("bos", "eos", "pad", "unk")
        if (text := _text(settings.get(f"{name}_token"))) in numbers
    }
    return Vocabulary(
        tokens=[token for token, _ in entries],
        kinds=[kind for _, kind in entries],
        merges=merges,
        cut=_cut(value.get("pre_tokenizer"), has_merges=bool(merges)),
        special=special,
        begins_with_bos=_begins_with(folder, special.get("bos")),
        chat_template=template_of(folder, settings),
    )


def template_of(folder: Path, settings: dict[str, Any]) -> str | None:
    """Return the chat template, byte for byte."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_bytes().decode("utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else None


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _begins_with(folder: Path, bos: int | None) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
    return bos is not None and ids[:1] == [bos]


def _cut(value: Any, *, has_merges: bool) -> str:
    """Return llama.cpp's name for a pre-tokenizer. Raises ConfigError where it has none that does the same."""
    parts = [value] if value and value.get("type") != "Sequence" else (value or {}).get("pretokenizers", [])
    steps = []
    for part in parts:
        if part.get("add_prefix_space"):
            raise unfit("a space put before the text", "text taken as it is")
        keys = ("type", "use_regex", "individual_digits", "pattern", "behavior", "invert")
        steps.append({key: part[key] for key in keys if key in part and part[key] not in (None, False)})
    bytes_only = {"type": "ByteLevel"}
    if not has_merges and steps == [bytes_only]:
        return "gpt-2"  # each byte is a token, wherever text is cut
    known = {
        "gpt-2": [GPT2],
        "smollm": [DIGITS, GPT2],
        "llama-bpe": [{"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated"}, bytes_only],
    }
    for name, wanted in known.items():
        if steps == wanted:
            return name
    raise unfit(f"a way of cutting text: {str(steps)[:200]}", ", ".join(known))


def unfit(found: str, expected: str) -> ConfigError:
    """Return the refusal of a tokenizer."""
    return ConfigError(
        "The tokenizer cannot be written as GGUF exactly",
        found=found,
        expected=expected,
        fix="export as hf, and convert that folder with llama.cpp's convert_hf_to_gguf.py",
        code="gguf_tokenizer",
    )
