"""State files edited by hand, at random: every command answers in words, with an exit code of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.disk.layout import Layout
from overnight.domain.errors import ExitCode

Run = Callable[..., Any]

FILES = ["config.json", ".config_lock.json", ".overnight/daemon.json", ".overnight/verified.json",
         "status/training_status.json", ".overnight/daemon.lock",
         "current_model/checkpoint-5/manifest.json"]  # fmt: skip
VERBS = [["status"], ["status", "--guards"], ["config", "check"], ["config", "lock"], ["config", "show"], ["verify"],
         ["checkpoints"], ["config", "set", "seed", "4"], ["resume"], ["doctor"], ["cleanup", "--dry-run"]]  # fmt: skip
CODES = {int(code) for code in ExitCode}


def mutated(data: bytes, source: random.Random) -> bytes:
    kind = source.randrange(6)
    at = source.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + source.randrange(1, 20) :]
    if kind == 3:
        return data[:at] + data[:at]
    if kind == 4:
        return source.choice([b"", b"null", b"[]", b"7", b'"x"', b"{}", b'{"schema": 1}', b"\0" * 50])
    value = json.loads(data)
    key = source.choice(list(value))
    value[key] = source.choice([None, -1, "x", [], {}, True, 1e308, "\x1b[2J\n", 10**30])
    return json.dumps(value).encode()


@pytest.mark.parametrize("seed", range(60))
def test_no_edit_leads_to_a_traceback(inside: Run, layout: Layout, seed: int) -> None:
    source = random.Random(seed)
    path = layout.root / source.choice(FILES)
    example = {
        "schema": 1, "state": "idle", "reason": "r", "since": 1.0, "updated_at": 2.0, "beat": 3.0, "boot_id": "b",
        "pid": 7, "locked": {"seed": 42}, "step": 5, "total": 9, "attempt": "000001-01", "checkpoints": {"c": "d"},
        "files": {"weights": {"bytes": 3, "blake3": "x"}}, "digest": "e",
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    data = path.read_bytes() if path.exists() else json.dumps(example).encode()
    path.write_bytes(mutated(data, source))
    for words in source.sample(VERBS, 3):
        said = inside(*words)
        assert said.code in CODES
        assert "Traceback" not in said.err
        assert "error of its own" not in said.err, f"{path.name}: {path.read_bytes()[:300]!r}\n{said.err}"
        assert "\x1b" not in said.out + said.err


def test_a_folder_of_the_tree_in_the_wrong_shape_is_words(inside: Run, layout: Layout) -> None:
    for folder in (layout.model, layout.versions, layout.status_file.parent, layout.logs):
        folder.rmdir()
        Path(folder).write_text("a file in its place")
    for words in VERBS:
        said = inside(*words)
        assert said.code in CODES
        assert "error of its own" not in said.err, said.err
