"""The command line, called as the process calls it: words in, exit code, stdout and stderr out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overnight import cli
from overnight.control import making
from overnight.disk.layout import Layout


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return dict(json.loads(lines[0]))


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("OVERNIGHT_WORKSPACE", raising=False)

    def run_words(*words: str) -> Said:
        capsys.readouterr()
        code = cli.run(list(words))
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return run_words


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "workspace"
    making.init(root, base_model="builtin:tiny", model_name=None, assignments=[], say=lambda text: None)
    return root


@pytest.fixture
def layout(tmp_path: Path, made_once: Path) -> Layout:
    """A fresh copy of a workspace as init makes it."""
    shutil.copytree(made_once, tmp_path / "workspace")
    return Layout(tmp_path / "workspace")


@pytest.fixture
def inside(layout: Layout, run: Run) -> Run:
    """Run a verb inside the workspace."""

    def run_inside(*words: str) -> Said:
        return run("-C", str(layout.root), *words)

    return run_inside
