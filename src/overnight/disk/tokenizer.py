"""A tokenizer read from a model's folder, as far as counting and encoding need it; no transformers, no network."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from overnight.disk import files
from overnight.domain.encoding import Encoder
from overnight.domain.errors import DataError
from overnight.domain.templates import FROZEN_DATE
from overnight.domain.tokenizer_limits import excess_in_file, excess_in_normalizer, panics_told

FILE_LIMIT = 256 << 20
"""Bytes; no tokenizer file is larger."""

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_encoder(folder: Path, *, today: datetime.date = FROZEN_DATE) -> Encoder:
    """Return the encoder of the model in ``folder``. Raises DataError that says what is missing or broken."""
    path = folder / "tokenizer.json"
    _require_plain_file(path)
    data = path.read_bytes()
    if (excess := excess_in_file(data)) is not None:
        raise _refusal(path, excess)
    try:
        with panics_told():
            tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception for whatever is wrong with the file
        raise _refusal(path, f"cannot be read: {str(error)[:300]}") from error
    del data
    if tokenizer.normalizer is not None:
        excess = excess_in_normalizer(tokenizer.normalizer.__getstate__())
        if excess is not None:
            raise _refusal(path, excess)
    config = _read_object(folder / "tokenizer_config.json")
    named = _read_object(folder / "special_tokens_map.json") | config
    special = {name: text for name in _NAMES if (text := _token_text(named.get(name))) is not None}
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        special |= {str(name): text for name, value in extra.items() if (text := _token_text(value)) is not None}
    return Encoder(
        tokenizer,
        chat_template=_chat_template(folder, config),
        eos_token=special.get("eos_token"),
        special_tokens=special,
        today=today,
    )


def cached_folder(hub_id: str) -> Path | None:
    """Return where the Hub's own cache holds a model, or None; asks no network."""
    home = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub"
    )
    model = Path(home) / f"models--{hub_id.replace('/', '--')}"
    try:
        folder = model / "snapshots" / (model / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        return None
    return folder if (folder / "tokenizer.json").exists() else None


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the template: the file of its own comes first; of several named ones, the default."""
    path = folder / "chat_template.jinja"
    if path.exists():
        _require_plain_file(path)
        try:
            return path.read_text(encoding="utf-8")
        except ValueError as error:
            raise _refusal(path, "is not UTF-8") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    elif isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _token_text(value: object) -> str | None:
    """Return a token's text, from either of the two ways it is written."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object, {} where the file is not there."""
    if not path.exists():
        return {}
    _require_plain_file(path)
    try:
        value = files.read_json(path)
    except (ValueError, RecursionError) as error:
        raise _refusal(path, f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _refusal(path, "is not a JSON object")
    return value


def _require_plain_file(path: Path) -> None:
    if not path.is_file():  # a FIFO would block for ever
        raise _refusal(path, "is not there" if not path.exists() else "is not a regular file")
    if path.stat().st_size > FILE_LIMIT:
        raise _refusal(path, "is too large")


def _refusal(path: Path, found: str) -> DataError:
    return DataError(
        "The tokenizer cannot be loaded",
        found=f"{path} {found}",
        expected="tokenizer.json (and tokenizer_config.json) as transformers saves them",
        fix="save the base model's tokenizer into its folder again",
        code="no_tokenizer",
    )
