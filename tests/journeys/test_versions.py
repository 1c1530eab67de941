"""Train, publish, train, publish, back twice, forward once, with real trainers: the bytes are equal at each place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import versions
from version_rig import VersionRig, hashed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def train(workspace: Any, tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    path = tmp_path / f"file{seed}.jsonl"
    with open(path, "w") as file:
        for _ in range(16):
            a, b = source.randint(0, 99), source.randint(0, 99)
            file.write(json.dumps({"prompt": f"{a}+{b}?", "completion": str(a + b)}) + "\n")
    workspace.run("add", str(path))
    workspace.until_idle()


def test_published_twice_taken_back_twice_and_once_forward(workspace: Any, tmp_path: Path) -> None:
    workspace.init()
    rig = VersionRig.at(workspace.root)
    train(workspace, tmp_path, 1)
    at_base = rig.here()
    made = workspace.json("consolidate", "-m", "sums")["version"]
    assert (made["id"], made["parent"], made["base_model"], made["step"]) == ("v001", None, "builtin:tiny", 4)
    assert 0 < made["merge"]["max_abs_difference"] <= 1e-5 < made["merge"]["max_abs_difference_from_base"]
    at_first = rig.here()
    train(workspace, tmp_path, 2)
    status = workspace.json("status")
    assert (status["step"], status["version"], status["checkpoint"]["step"]) == (8, "v001", 8)
    first = versions.read(rig.layout.versions / "v001")
    manifest = json.loads((rig.layout.checkpoint(8) / "manifest.json").read_text())
    assert manifest["fingerprints"]["base_model"] == first.fingerprints["base_model"]
    assert manifest["fingerprints"]["tokenizer"] == first.fingerprints["tokenizer"]
    assert workspace.json("verify")["ok"]
    second = workspace.json("consolidate", "-m", "more sums")["version"]
    assert (second["id"], second["parent"], second["base_model"], second["step"]) == ("v002", "v001", "models/v001", 8)
    assert versions.read(rig.layout.versions / "v002").base_fingerprint == first.fingerprints["base_model"]
    at_second = rig.here()
    assert workspace.json("versions", "verify", "v002")["ok"]

    for place, expected in ((at_first, "v001"), (at_base, None)):
        assert workspace.json("versions", "rollback")["version"] == expected
        assert rig.here() == place
    assert workspace.json("verify")["resume_from"]["step"] == 4
    workspace.run("versions", "rollback", "v001")
    assert rig.here() == at_first
    workspace.run("versions", "rollback", "v002")
    assert rig.here() == at_second


def test_a_full_fine_tune_is_published_as_it_is_and_training_goes_on(workspace: Any, tmp_path: Path) -> None:
    workspace.init(method="full", **{"train.learning_rate": "0.0005"})
    rig = VersionRig.at(workspace.root)
    train(workspace, tmp_path, 1)
    trained = hashed(rig.layout.checkpoint(4) / "model.safetensors")
    made = workspace.json("consolidate", "-m", "all of it")["version"]
    assert made["merge"]["max_abs_difference"] == 0
    version = versions.read(rig.layout.versions / "v001")
    assert version.kind == "full"
    assert hashed(rig.layout.versions / "v001" / "model.safetensors") == trained
    train(workspace, tmp_path, 2)
    assert workspace.json("status")["step"] == 8
