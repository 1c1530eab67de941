"""A version: an immutable published model, what it is and what it was made from.

Ids are ``v`` and a number of at least three digits: ``v001``, ... ``v999``, ``v1000``. An id is that very text: ``v1``
is not ``v001``, and no beginning of an id means a version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from overnight.domain.checkpoint import FileRecord
from overnight.domain.errors import UsageError

WHAT = "overnight version"
"""What a version's manifest calls itself, so that a folder says what it is."""

BASE = "base"
"""The name of the place before the first version: the base model that the workspace was made with."""

MAKING = "a version is being made"
"""What the lock on the model's checkpoints says meanwhile."""

FOLDER = "models"
DESCRIPTION_LIMIT = 10_000
_ID = re.compile(r"v(0[0-9]{2}|[1-9][0-9]{2,11})")


class VersionState(StrEnum):
    """What the verifier says of a version."""

    OK = "ok"  # every file is what the manifest says
    CORRUPT = "corrupt"  # a file or the manifest differs from what was published
    INCOMPLETE = "incomplete"  # no manifest, or something of it is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """The manifest of a version; written last."""

    schema: int = 1
    what: str = WHAT
    id: str
    parent: str | None  # the version that it was made from; None: the base model of the workspace
    kind: str  # "merge" (base and adapter) | "full" (all weights were trained)
    description: str  # the user's words, whatever they are
    created_at: float  # unix seconds, UTC
    step: int  # global step at which it was made
    model_name: str
    method: str
    base_model: str  # what it was made from, as config.json named it
    base_path: str
    base_fingerprint: str
    checkpoint: str  # name of the checkpoint that it was made from
    checkpoint_digest: str  # hash of that checkpoint's manifest
    datasets: list[dict[str, Any]]  # trained since the parent: sha256, file, job, examples, steps
    config: dict[str, Any]  # the settings as they were
    locked: dict[str, Any]  # the settings that may not change while it is in use, by dotted key
    metrics: dict[str, Any]  # loss, eval_loss
    libraries: dict[str, Any]  # the ground that the checkpoint was trained on
    merge: dict[str, Any]  # what the merge measured; empty where nothing was merged
    fingerprints: dict[str, str]  # base_model: of its own files, as checkpoints on it record it; tokenizer
    files: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The bytes of its files."""
        return sum(record.bytes for record in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReport:
    """One folder of ``models/``, judged."""

    id: str
    path: str
    state: VersionState
    reason: str
    bytes: int
    version: Version | None  # None where the manifest cannot be read


def version_id(number: int) -> str:
    """Return the id of the n-th version."""
    return f"v{number:03d}"


def number_of(text: str) -> int | None:
    """Return the number of an id, or None where the text is no id."""
    match = _ID.fullmatch(text)
    number = int(match[1]) if match else 0
    return number if number > 0 else None


def next_id(known: Iterable[str]) -> str:
    """Return the first id above all that were ever given."""
    return version_id(1 + max((number for text in known if (number := number_of(text)) is not None), default=0))


def base_model_of(identity: str) -> str:
    """Return how config.json names a version as base model."""
    return f"{FOLDER}/{identity}"


def version_of(base_model: object) -> str | None:
    """Return the id of the version that a base model is, or None where it is another model."""
    if not isinstance(base_model, str):
        return None
    folder, _, identity = base_model.removeprefix("./").rstrip("/").partition("/")
    return identity if folder == FOLDER and number_of(identity) is not None else None


def as_description(text: str) -> str:
    """Return the user's words as they are kept. Raises UsageError where they are no description but a book."""
    if len(text) > DESCRIPTION_LIMIT:
        raise UsageError(
            "The description is too long",
            found=f"{len(text)} characters",
            expected=f"at most {DESCRIPTION_LIMIT}",
            fix="say it in fewer words; what was trained is recorded anyway",
            code="description",
        )
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # bytes that are no text are spelt out


def unknown(identity: str, known: Iterable[str]) -> UsageError:
    """Return the refusal of an id that is not there."""
    ids = list(known)
    return UsageError(
        f"There is no version '{identity[:100]}'",
        found="nothing of exactly that id",
        expected=", ".join(ids[-10:]) if ids else "no version was made yet: overnight consolidate -m TEXT makes one",
        fix="overnight versions lists them",
        code="unknown_version",
    )


def model_card(version: Version) -> str:
    """Return the model card: README.md of the version."""
    origin = f"version {version.parent}" if version.parent else "the base model of its workspace"
    rows = [
        f"| {_cell(str(one.get('file')))} | {one.get('examples')} | {one.get('steps')} | `{one.get('sha256')}` |"
        for one in version.datasets
    ]
    figures = [f"- {_cell(str(name))}: {_cell(str(value))}" for name, value in {**version.metrics}.items()]
    figures += [f"- merge, {_cell(str(name))}: {_cell(str(value))}" for name, value in version.merge.items()]
    return "\n".join(
        [
            f"# {_cell(version.model_name)} {version.id}",
            "",
            *(f"> {line}" for line in (_plain(version.description).splitlines() or [""])),
            "",
            f"Made by Overnight at step {version.step} from {origin}, method {version.method}.",
            "",
            f"- made from: `{_cell(version.base_model)}` ({version.base_fingerprint}), {version.checkpoint}",
            f"- these weights: {version.fingerprints.get('base_model', '')}",
            f"- tokenizer and chat template: {version.fingerprints.get('tokenizer', '')}",
            "",
            "## Trained on, since then",
            "",
            "| file | rows | steps | SHA-256 |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Figures",
            "",
            *(figures or ["- none were measured"]),
            "",
            "## Libraries",
            "",
            *(f"- {_cell(str(name))}: {_cell(str(value))}" for name, value in sorted(version.libraries.items())),
            "",
            "Each file with its size and hash, and all settings: `manifest.json`.",
            "",
        ]
    )


def _cell(text: str) -> str:
    return _plain(text).replace("\n", " ").replace("|", "\\|").replace("`", "'")[:500]


def _plain(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)
