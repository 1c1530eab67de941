"""Tokens kept from one attempt to the next: a recovery need not encode the rows again.

They are named by all that they hang on: the rows, the tokenizer, the settings of the encoding, our own code and the
libraries that do it. They are used only where their bytes are those that were kept; whatever is wrong with them, the
rows are encoded again. Only the newest are kept, as second names of a file that the attempt has anyway.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from blake3 import blake3

import overnight
from overnight.disk import files
from overnight.domain.config import Settings
from overnight.domain.errors import DiskError

SCHEMA = 1
CODE = (
    "domain/*.py", "disk/tokenizer.py", "trainer/data.py", "trainer/heldout.py", "trainer/kept.py",
    "trainer/rehearsal.py",
)  # fmt: skip
LIBRARIES = ("jinja2", "pyarrow", "tokenizers", "xxhash")


@dataclass(frozen=True, slots=True)
class Kept:
    """The tokens of one data set, encoded in one way."""

    folder: Path  # of this workspace's tokens
    name: str

    def find(self, target: Path, *, on_block: Callable[[], None]) -> dict[str, Any] | None:
        """Bring the tokens to ``target`` and return what was said of them, or None where there are none to trust."""
        try:
            value = files.read_json(self._account)
            if value["schema"] != SCHEMA or value["seal"] != seal_of(value["account"]):
                return None
            if value["digest"] != digest_of(self._tokens, on_block=on_block):
                return None
            files.link_or_copy(self._tokens, target)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(value["account"])

    def keep(self, source: Path, account: dict[str, Any], *, on_block: Callable[[], None]) -> None:
        """Keep tokens, and no others any more. A disk that refuses is no reason to stop."""
        with contextlib.suppress(OSError, DiskError):
            if self.folder.is_dir():
                files.remove_tree(self.folder, inside=self.folder.parent)
            files.make_directory(self.folder)
            files.link_or_copy(source, self._tokens)
            digest = digest_of(self._tokens, on_block=on_block)
            value = {"schema": SCHEMA, "digest": digest, "seal": seal_of(account), "account": account}
            files.write_json_atomically(self._account, value)

    @property
    def _tokens(self) -> Path:
        return self.folder / f"{self.name}.arrow"

    @property
    def _account(self) -> Path:
        return self.folder / f"{self.name}.json"


def kept_in(
    folder: Path,
    *,
    dataset_id: str,
    tokenizer: str,
    settings: Settings,
    left_out: Collection[int] = (),
    rehearsal: str = "",
    earlier: Collection[str] = (),
) -> Kept:
    """Return the place of the tokens that a job needs."""
    facts = {
        "rows": dataset_id,
        "left_out": sorted(left_out),
        "rehearsal": [rehearsal, settings.seed] if rehearsal else None,
        "held_out_earlier": sorted(earlier),
        "tokenizer": tokenizer,
        "max_length": settings.max_length,
        "supervise": settings.train.supervise,
        "holdout": settings.evaluation.holdout,
        "max_examples": settings.evaluation.max_examples,
        "code": code_fingerprint(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }
    return Kept(folder, blake3(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32])


def code_fingerprint() -> str:
    """Return the hash of the code that makes tokens from rows."""
    top = Path(overnight.__file__).parent
    digest = blake3()
    for pattern in CODE:
        for path in sorted(top.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def seal_of(account: dict[str, Any]) -> str:
    """Return the hash of what is said of the tokens."""
    return blake3(json.dumps(account, sort_keys=True).encode()).hexdigest()


def digest_of(path: Path, *, on_block: Callable[[], None]) -> str:
    """Return the hash of a file."""
    digest = blake3()
    with open(path, "rb") as file:
        while block := file.read(files.CHUNK_BYTES):
            digest.update(block)
            on_block()
    return digest.hexdigest()
