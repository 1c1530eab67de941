"""Secrets in text that is kept or shown: tokens and passwords are struck out, the rest stays readable."""

from __future__ import annotations

import re
from typing import Any

STRUCK = "[removed]"

_TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|\b(?:ghp|gho|ghs|ghu|github_pat)_[A-Za-z0-9_]{16,}"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\beyJ[A-Za-z0-9_-]{10,8192}\.[A-Za-z0-9_-]{10,8192}\.[A-Za-z0-9_-]*"  # JSON web tokens
)
_NAMED = re.compile(
    r"""(?ix) \b ( \w{0,64} (?: (?:auth|access|api|hub|hf|refresh|bearer|session|secret|private)[_-]?(?:token|key)
                         | wandb[_-]?key | passwd | password | secret | credential s? ) \w{0,64} )
        ( ["']? \s* (?: [=:] | \bis\b | \bset\ to\b ) \s* ["']? ) ( [^\s"',;{}\[\])]{6,} )"""
)
_BEARER = re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
_ADDRESS = re.compile(r"(://[^\s/:@]{0,100}:)[^\s/@]{1,200}@")
_WANDB = re.compile(r"(?i)(wandb.{0,80}?\b)[0-9a-f]{40}\b")


def without_secrets(text: str) -> str:
    """Return a text with everything struck out that looks like a token, a key or a password."""
    text = _TOKENS.sub(STRUCK, text)
    text = _BEARER.sub(rf"\1{STRUCK}", text)
    text = _ADDRESS.sub(rf"\1{STRUCK}@", text)
    text = _WANDB.sub(rf"\1{STRUCK}", text)
    return _NAMED.sub(lambda found: f"{found[1]}{found[2]}{STRUCK}", text)


def strike_values(value: Any) -> Any:
    """Return a JSON value with the secrets in all its texts struck out.

    As JSON a text is harder to read: before "hf_..." may stand the "n" of an escaped end of line.
    """
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [strike_values(item) for item in value]
    if isinstance(value, dict):
        return {name: strike_values(item) for name, item in value.items()}
    return value
