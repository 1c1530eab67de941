"""A merge is the trained model or nothing: the numbers, the refusals, the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from merge_rig import Striker, merge_here, spec_of, trained  # noqa: E402
from rig import Rig  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from overnight.disk import builtin, checkpoints, fingerprints  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.domain.merge import FLOAT32_TOLERANCE, MergeReport, MergeSpec  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """Give a workspace whose model has learnt something; the tests leave it as it is."""
    return trained(tmp_path_factory.mktemp("merge"))


@pytest.fixture
def spec(rig: Rig, request: pytest.FixtureRequest) -> MergeSpec:
    name = "".join(sign if sign.isalnum() else "-" for sign in request.node.name)[:150]
    return spec_of(rig, name)


@pytest.fixture(scope="module")
def merged(rig: Rig) -> tuple[MergeSpec, MergeReport]:
    """Give a merge that nothing disturbs."""
    spec = spec_of(rig, "undisturbed")
    return spec, merge_here(rig, spec)


def target_of(spec: MergeSpec) -> Path:
    return Path(spec.target)


def require_refused(report: MergeReport, spec: MergeSpec, code: str) -> None:
    """Refused with this code and in words, and nothing is left."""
    assert (report.outcome, report.problem and report.problem.code) == (Outcome.CRASHED, code), report.message
    assert report.problem is not None
    assert report.problem.what
    assert not target_of(spec).exists()
    assert report.files == {}


def test_the_merged_model_is_base_and_adapter_to_the_fifth_digit_and_not_the_base(
    merged: tuple[MergeSpec, MergeReport],
) -> None:
    spec, report = merged
    assert report.outcome is Outcome.COMPLETED, report.message
    assert report.max_abs_difference is not None
    assert report.max_abs_difference_from_base is not None
    print(f"float32: {report.max_abs_difference:.3g} off, {report.max_abs_difference_from_base:.3g} learnt")
    assert report.max_abs_difference <= FLOAT32_TOLERANCE
    assert report.max_abs_difference_from_base > 0.01
    assert (report.tensors_changed, report.tensors, report.dtype) == (14, 21, "F32")
    assert report.bytes == sum(path.stat().st_size for path in target_of(spec).rglob("*") if path.is_file())


def test_what_the_adapter_does_not_change_keeps_its_bytes_also_tokenizer_and_template(
    merged: tuple[MergeSpec, MergeReport],
) -> None:
    spec, report = merged
    base, target = Path(spec.base_model), target_of(spec)
    for name in ("config.json", "generation_config.json", *fingerprints.TOKENIZER_PARTS):
        if (base / name).exists():
            assert (target / name).read_bytes() == (base / name).read_bytes()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (target / "adapter" / name).read_bytes() == (Path(spec.checkpoint) / name).read_bytes()
    old, new = load_file(base / "model.safetensors"), load_file(target / "model.safetensors")
    same = {name for name in old if torch.equal(old[name], new[name])}
    assert len(same) == report.tensors - report.tensors_changed
    assert "model.embed_tokens.weight" in same


def test_two_merges_of_one_adapter_have_the_same_bytes(
    rig: Rig, merged: tuple[MergeSpec, MergeReport], spec: MergeSpec
) -> None:
    assert merge_here(rig, spec).files == merged[1].files


def test_a_fully_trained_model_is_published_as_it_is(tmp_path: Path) -> None:
    full = trained(tmp_path, method="full")
    spec = spec_of(full)
    report = merge_here(full, spec)
    assert report.outcome is Outcome.COMPLETED, report.message
    assert (report.max_abs_difference, report.tensors_changed) == (0.0, 21)
    weights = "model.safetensors"
    assert (target_of(spec) / weights).read_bytes() == (Path(spec.checkpoint) / weights).read_bytes()
    assert not (target_of(spec) / "adapter").exists()


def test_a_coarser_base_in_several_files_is_merged_in_float32_and_rounded_once(tmp_path: Path) -> None:
    coarse = tmp_path / "base"
    builtin.make_tiny(coarse)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(coarse / "model.safetensors").items()}
    (coarse / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in sorted(set(places.values())):
        save_file({name: weights[name] for name in names if places[name] == file}, coarse / file)
    (coarse / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    rig = trained(tmp_path / "workspace", base_model=str(coarse))
    spec = spec_of(rig)
    report = merge_here(rig, spec)
    assert report.outcome is Outcome.COMPLETED, report.message
    assert report.max_abs_difference_unrounded is not None
    print(f"bfloat16: {report.max_abs_difference_unrounded:.3g} off unrounded, {report.max_abs_difference:.3g} rounded")
    assert report.dtype == "BF16"
    assert report.max_abs_difference_unrounded <= FLOAT32_TOLERANCE
    assert {name for name in report.files if name.startswith("model")} == {
        *places.values(), "model.safetensors.index.json",
    }  # fmt: skip
    name = "model.layers.0.self_attn.q_proj"
    adapter = load_file(Path(spec.checkpoint) / "adapter_model.safetensors")
    first, second = (adapter[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
    delta = (second.double() @ first.double()) * (8 / 4)  # alpha / r
    expected = (weights[f"{name}.weight"].float() + delta.float()).bfloat16()
    assert torch.equal(load_file(target_of(spec) / places[f"{name}.weight"])[f"{name}.weight"], expected)


def test_another_base_in_the_same_place_is_refused(tmp_path: Path, rig: Rig, spec: MergeSpec) -> None:
    other = tmp_path / "base"
    shutil.copytree(spec.base_model, other)
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    spec = dataclasses.replace(spec, base_model=str(other))
    require_refused(merge_here(rig, spec), spec, "wrong_base")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, rig: Rig, spec: MergeSpec) -> None:
    other = tmp_path / "base"
    shutil.copytree(spec.base_model, other)
    (other / "config.json").write_text((other / "config.json").read_text().replace("1e-05", "2e-05"))
    spec = dataclasses.replace(spec, base_model=str(other), base_fingerprint=fingerprints.of_folder(other))
    require_refused(merge_here(rig, spec), spec, "adapter_of_another_base")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_a_damaged_adapter_is_refused(tmp_path: Path, rig: Rig, spec: MergeSpec, name: str) -> None:
    copy = tmp_path / Path(spec.checkpoint).name
    shutil.copytree(spec.checkpoint, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 0b100
    (copy / name).write_bytes(data)
    spec = dataclasses.replace(spec, checkpoint=str(copy))
    require_refused(merge_here(rig, spec), spec, "damaged_adapter")


def committed(spec: MergeSpec, place: Path, change: Callable[[dict[str, Any]], None]) -> MergeSpec:
    """Commit a checkpoint whose adapter holds other numbers."""
    manifest = checkpoints.read_manifest(Path(spec.checkpoint))
    staging = place / "staging"
    shutil.copytree(spec.checkpoint, staging)
    (staging / "manifest.json").unlink()
    tensors = load_file(staging / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, staging / "adapter_model.safetensors", metadata={"format": "pt"})
    checkpoints.commit(staging, place / Path(spec.checkpoint).name, manifest)
    return dataclasses.replace(spec, checkpoint=str(place / Path(spec.checkpoint).name))


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path, rig: Rig, spec: MergeSpec) -> None:
    def forget(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor.zero_()

    spec = committed(spec, tmp_path, forget)
    require_refused(merge_here(rig, spec), spec, "nothing_changed")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, rig: Rig, spec: MergeSpec, number: float) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        name = next(name for name in sorted(tensors) if "lora_B" in name)
        tensors[name][0, 0] = number

    spec = committed(spec, tmp_path, spoil)
    report = merge_here(rig, spec)
    require_refused(report, spec, "not_finite")
    assert report.failure is FailureKind.NAN_LOSS


def flip_last_bit(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)  # the lowest bit of a float32: no logit shows it
        byte = file.read(1)[0]
        file.seek(-4, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "adapter/adapter_model.safetensors"])
def test_what_rots_between_write_and_reading_again_is_found_to_the_last_bit(
    rig: Rig, spec: MergeSpec, name: str
) -> None:
    report = merge_here(rig, spec, Striker("merged", lambda: flip_last_bit(target_of(spec) / name)))
    require_refused(report, spec, "damaged_write")


def test_a_base_that_is_exchanged_while_the_merge_reads_it_is_found(tmp_path: Path, rig: Rig, spec: MergeSpec) -> None:
    copy = tmp_path / "base"
    shutil.copytree(spec.base_model, copy)
    spec = dataclasses.replace(spec, base_model=str(copy))

    def exchange() -> None:
        weights = load_file(copy / "model.safetensors")
        weights["lm_head.weight"][0] *= 1.5
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    require_refused(merge_here(rig, spec, Striker("merge", exchange)), spec, "wrong_base")
    assert fingerprints.of_folder(copy) != spec.base_fingerprint


def test_a_difference_over_the_limit_is_refused_with_its_size(rig: Rig, spec: MergeSpec) -> None:
    spec = dataclasses.replace(spec, tolerance=1e-9)
    report = merge_here(rig, spec)
    require_refused(report, spec, "merge_differs")
    assert report.problem is not None
    assert "logits that differ by" in str(report.problem.found)


def test_a_target_that_is_there_is_left_alone(rig: Rig, spec: MergeSpec) -> None:
    target_of(spec).mkdir()
    (target_of(spec) / "mine").touch()
    report = merge_here(rig, spec)
    assert report.problem is not None
    assert report.problem.code == "target_in_way"
    assert os.listdir(target_of(spec)) == ["mine"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give disks of a wanted size."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        point = tmp_path / f"disk-{len(made)}"
        point.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], capture_output=True)
        if done.returncode:
            pytest.skip("mounting a small tmpfs needs rights that are missing here")
        made.append(point)
        return point

    yield mount
    for point in made:
        subprocess.run(["umount", str(point)], check=True)


def test_a_disk_that_cannot_hold_the_version_is_told_before_anything_is_written(
    rig: Rig, spec: MergeSpec, small_disk: Callable[[str], Path]
) -> None:
    spec = dataclasses.replace(spec, target=str(small_disk("size=16m") / "staging"))
    report = merge_here(rig, spec)
    require_refused(report, spec, "no_space")
    assert report.failure is FailureKind.DISK_FULL


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(
    rig: Rig, spec: MergeSpec, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=48m")
    spec = dataclasses.replace(spec, target=str(disk / "staging"))

    def fill() -> None:
        with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    report = merge_here(rig, spec, Striker("merge", fill))
    require_refused(report, spec, "enospc")
    assert os.listdir(disk) == ["filler"]


def test_a_disk_out_of_inodes_leaves_nothing(rig: Rig, spec: MergeSpec, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=48m,nr_inodes=5")
    spec = dataclasses.replace(spec, target=str(disk / "staging"))
    report = merge_here(rig, spec)
    require_refused(report, spec, "enospc")
    assert report.problem is not None
    assert "inodes" in str(report.problem.found)
    assert os.listdir(disk) == []
