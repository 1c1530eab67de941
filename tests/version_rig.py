"""A workspace with simulated trainers whose model is published, and what is compared between two places."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from overnight.control import versions as control
from overnight.disk import files, transition, workspace
from overnight.domain.version import Version
from simulated_rig import Rig

BLANK = Version(
    id="v001", parent=None, kind="full", description="the first", created_at=1_700_000_000.5, step=16,
    model_name="simulated", method="lora", base_model="builtin:tiny", base_path="/nowhere", base_fingerprint="b",
    checkpoint="checkpoint-16", checkpoint_digest="11", datasets=[], config={}, locked={}, metrics={}, libraries={},
    merge={}, fingerprints={},
)  # fmt: skip
"""A version for tests that need only its form."""


class VersionRig(Rig):
    """The rig, with versions."""

    @classmethod
    def at(cls, root: Path, monkeypatch: pytest.MonkeyPatch | None = None) -> VersionRig:
        """Return the rig of a workspace that is there already."""
        made = cls.__new__(cls)
        made.layout = workspace.open_workspace(root)
        made.processes, made.options, made._monkeypatch, made._contexts = [], "", monkeypatch, []
        return made

    @staticmethod
    def hashes(folder: Path, root: Path) -> dict[str, str]:
        """Return the hash of each file below a folder, by its path below another one."""
        return {str(path.relative_to(root)): hashed(path) for path in sorted(folder.rglob("*")) if path.is_file()}

    def train(self, name: str, *, rows: int = 32) -> None:
        """Train one file to its end."""
        self.submit(name, rows=rows)
        context = self.context()
        self.tick_until(context, self.is_done, timeout=60)
        self.close(context)

    def consolidate(self, words: str = "a version") -> Version:
        """Make a version as the command does."""
        connection = self.connect()
        try:
            return control.consolidate(
                self.layout, connection, description=words, tell=lambda words: None, now=time.time()
            )
        finally:
            connection.close()

    def roll_back(self, to: str | None = None) -> Any:
        """Put another version in use as the command does."""
        connection = self.connect()
        try:
            return control.roll_back(self.layout, connection, to=to, now=time.time())
        finally:
            connection.close()

    def here(self) -> dict[str, str]:
        """Return the hash of everything that says where the model stands."""
        layout = self.layout
        paths = [layout.config, layout.config_lock]
        for name in transition.checkpoint_names(layout.model):
            paths += sorted(path for path in (layout.model / name).rglob("*") if path.is_file())
        for folder in sorted(layout.versions.glob("v*")):
            paths += sorted(path for path in folder.rglob("*") if path.is_file())
        found = {str(path.relative_to(layout.root)): hashed(path) for path in paths if path.exists()}
        return {name: value for name, value in found.items() if not name.startswith("models/")} | {
            "model": found_model(self, found)
        }


def found_model(rig: VersionRig, found: dict[str, str]) -> str:
    """Return the hash of the version in use, file by file."""
    base = files.read_json(rig.layout.config)["base_model"]
    own = {name: value for name, value in found.items() if name.startswith(f"{base}/")}
    return blake3(repr(sorted(own.items())).encode()).hexdigest()


def hashed(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()
