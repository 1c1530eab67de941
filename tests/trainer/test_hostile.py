"""Pickles and code in model folders and checkpoints are never run: each would leave a file behind, and none does."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig, sums  # noqa: E402

from overnight import starting  # noqa: E402
from overnight.disk import checkpoints  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.domain.checkpoint import Verdict  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "owned"


def plant(path: Path, canary: Path, *, is_zip: bool = True) -> None:
    """Write a pickle bomb as torch writes its files: a zip, or the older plain pickle."""
    if is_zip:
        torch.save({"state": Bomb(canary), "param_groups": []}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(canary)))


def test_the_bomb_is_one(canary: Path, tmp_path: Path) -> None:
    plant(tmp_path / "x.pt", canary)
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert canary.exists()
    canary.rmdir()
    plant(tmp_path / "y.pt", canary, is_zip=False)
    pickle.loads((tmp_path / "y.pt").read_bytes())
    assert canary.exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "plain"])
def test_a_base_model_of_pickles_is_refused_and_never_unpickled(tmp_path: Path, canary: Path, is_zip: bool) -> None:
    rig = Rig(tmp_path)
    base = rig.layout.base / "tiny"
    (base / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pt", "consolidated.00.pth"):
        plant(base / name, canary, is_zip=is_zip)
    report = rig.run(rig.spec(1, rig.rows(sums(1, 8), "a")))
    assert report.outcome is Outcome.CRASHED
    assert not report.charged
    assert not canary.exists()


def test_pickles_beside_whole_weights_are_passed_over(tmp_path: Path, canary: Path) -> None:
    rig = Rig(tmp_path)
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin"):
        plant(rig.layout.base / "tiny" / name, canary)
    assert rig.run(rig.spec(1, rig.rows(sums(1, 8), "a"))).outcome is Outcome.COMPLETED
    assert not canary.exists()


def begun(root: Path) -> tuple[Rig, Path]:
    """Return a rig whose job was cut after its first checkpoint, and the checkpoint."""
    rig = Rig(root, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 16), "a")
    rig.run(rig.spec(1, rows), fault="step:4:raise")
    newest = rig.newest()
    assert newest is not None
    return rig, Path(newest.path)


LOADED = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("name", [*LOADED, "training_args.bin", "adapter_model.bin", "scaler.pt"])
def test_a_checkpoint_with_a_foreign_pickle_is_not_used(tmp_path: Path, canary: Path, name: str) -> None:
    rig, folder = begun(tmp_path)
    plant(folder / name, canary)
    assert checkpoints.verify(folder).verdict is Verdict.CORRUPT
    start = starting.find(rig.layout, base_model="builtin:tiny", ever_committed=2)
    assert start.newest is None
    assert name in start.passed_over[0].reason
    assert not canary.exists()


@pytest.mark.parametrize("name", LOADED)
def test_a_pickle_that_was_sealed_into_a_checkpoint_is_not_run_either(tmp_path: Path, canary: Path, name: str) -> None:
    rig, folder = begun(tmp_path)
    manifest = checkpoints.read_manifest(folder)
    sealed = tmp_path / "sealed"
    shutil.move(folder, sealed)
    (sealed / "manifest.json").unlink()
    plant(sealed / name, canary)
    checkpoints.commit(sealed, folder, manifest)
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED, "whoever seals it has the rights of the daemon"
    report = rig.run(rig.spec(1, rig.layout.datasets / "a" / "rows.jsonl"))
    assert report.outcome is Outcome.CRASHED, "it is not loaded, and not passed over in silence"
    assert not canary.exists()


def test_a_zip_bomb_in_place_of_the_optimizer_is_never_unpacked(tmp_path: Path) -> None:
    _, folder = begun(tmp_path)
    with zipfile.ZipFile(folder / "optimizer.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", pickle.dumps({}))
        bomb.writestr("archive/data/0", io.BytesIO(bytes(256 << 20)).getbuffer())
    assert (folder / "optimizer.pt").stat().st_size < 1 << 20
    report = checkpoints.verify(folder)  # by size and hash alone
    assert (report.verdict, "optimizer.pt" in report.reason) == (Verdict.CORRUPT, True)


@pytest.mark.parametrize(
    "lie", [{"vocab_size": 2**40}, {"num_hidden_layers": 10**9}, {"intermediate_size": 2**40}], ids=str
)
def test_a_base_model_with_absurd_sizes_is_refused_before_anything_is_built(
    tmp_path: Path, lie: dict[str, int]
) -> None:
    rig = Rig(tmp_path)
    path = rig.layout.base / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **lie}))
    report = rig.run(rig.spec(1, rig.rows(sums(1, 8), "a")))
    assert (report.kind, report.charged) == (FailureKind.CONFIG_ERROR, False)
    assert "cannot be what it says" in report.message
    start = starting.find(rig.layout, base_model="builtin:tiny", ever_committed=0)
    assert "config.json says" in str(start.base.damage)
    assert start.hindrances, "it is told before a trainer starts"
