"""Any damage to any file of the newest checkpoints is found, and nothing that is whole is ever called damaged."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from damage_rig import DAMAGES
from overnight.disk import checkpoints, trust
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Manifest, Verdict

NAMES = (
    "adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt",
    "tokenizer.json", "trainer_state.json", "training_args.json",
)  # fmt: skip
STEPS = (5, 10, 15, 20)
FLIPS = 10_000 if "OVERNIGHT_EVERY_DAMAGE" in os.environ else 400
"""Set OVERNIGHT_EVERY_DAMAGE for the whole of it; it takes about a minute."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Make a workspace with the files of a real checkpoint; each one differs from step to step."""
    layout = Layout(tmp_path_factory.mktemp("made"))
    layout.state.mkdir()
    chance = random.Random(7)
    for step in STEPS:
        staging = layout.root / "staging"
        staging.mkdir()
        for number, name in enumerate(NAMES):
            (staging / name).write_bytes(chance.randbytes(700 + 900 * number))
        (staging / "trainer_state.json").write_text(f'{{"global_step": {step}, "max_steps": 100}}')
        manifest = Manifest(
            step=step, job=1, job_step=step, job_total=100, start_step=0, attempt="000001-01", dataset_id="d" * 64,
            created_at=1795878278.5585663, model_name="m", method="lora", locked={"lora.dropout": 0.05, "seed": 42},
            data_cursor={"epoch": 0, "rows": step}, fingerprints={"base_model": "blake3:0"},
            environment={"torch": "2.9"}, files={},
        )  # fmt: skip
        checkpoints.commit(staging, layout.checkpoint(step), manifest)
    return layout


@pytest.fixture
def layout(made: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(made.root, tmp_path / "copy", symlinks=True)
    return Layout(tmp_path / "copy")


@pytest.mark.parametrize("how", DAMAGES)
def test_each_damage_to_each_file_of_the_newest_one_to_three_is_found_and_the_right_one_is_used(
    layout: Layout, how: str
) -> None:
    cases = 0
    for name in (*NAMES, "manifest.json"):
        for depth in (1, 2, 3):
            damaged = sorted(STEPS, reverse=True)[:depth]
            kept = {step: (layout.checkpoint(step) / name).read_bytes() for step in damaged}
            for step in damaged:
                DAMAGES[how](layout.checkpoint(step) / name, layout.checkpoint(5) / name)
            newest, passed_over = checkpoints.newest_verified(layout.model)
            assert newest is not None, (name, depth)
            assert newest.step == sorted(STEPS, reverse=True)[depth], (name, depth)
            assert [report.step for report in passed_over] == damaged
            assert all(name.partition(".")[0] in report.reason for report in passed_over), passed_over
            for step, data in kept.items():
                (layout.checkpoint(step) / name).write_bytes(data)
            cases += 1
    assert cases == 27
    assert checkpoints.newest_verified(layout.model)[0] is not None


def test_every_single_bit_flipped_anywhere_in_a_committed_checkpoint_is_found(layout: Layout) -> None:
    """In proportion to their sizes, so that each bit of the checkpoint is as likely as any other."""
    folder = layout.checkpoint(20)
    paths = sorted(folder.iterdir())
    chance = random.Random(20)
    weights = [path.stat().st_size for path in paths]
    unseen = []
    for _ in range(FLIPS):
        path = chance.choices(paths, weights)[0]
        data = path.read_bytes()
        at, bit = chance.randrange(len(data)), chance.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])
        if checkpoints.verify(folder).verdict is Verdict.VERIFIED:
            unseen.append((path.name, at, bit))
        path.write_bytes(data)
    assert unseen == []
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED


def test_every_bit_of_the_manifest_counts(layout: Layout) -> None:
    path = layout.checkpoint(20) / "manifest.json"
    data = path.read_bytes()
    step = 1 if "OVERNIGHT_EVERY_DAMAGE" in os.environ else 23
    unseen = []
    for place in range(0, len(data) * 8, step):
        at, bit = divmod(place, 8)
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])
        if checkpoints.judge_by_looks(path.parent).verdict is Verdict.VERIFIED:
            unseen.append((at, bit, data[max(0, at - 10) : at + 10]))
    assert unseen == []


def test_a_thousand_looks_at_what_is_whole_raise_no_false_alarm(layout: Layout) -> None:
    for number in range(1000):
        step = STEPS[number % len(STEPS)]
        folder = layout.checkpoint(step)
        if number % 10 == 0:  # what may happen to a whole one: touched, copied, another order of names
            os.utime(folder / "optimizer.pt", (number, number))
        if number % 100 == 0:
            moved = folder.with_name(".away")
            shutil.copytree(folder, moved)
            shutil.rmtree(folder)
            moved.rename(folder)
        report = trust.verify(layout, folder) if number % 2 else checkpoints.verify(folder)
        assert report.verdict is Verdict.VERIFIED, (number, report.reason)


def test_a_file_added_that_a_library_would_load_is_found_and_a_note_is_not(layout: Layout) -> None:
    folder = layout.checkpoint(20)
    for name in ("README.md", "pinned", "notes.txt"):
        (folder / name).write_text("mine")
    assert checkpoints.verify(folder).verdict is Verdict.VERIFIED
    for name in ("adapter_model.bin", "scaler.pt", "rng_state_0.pth", "modeling.py", "model.safetensors.index.json"):
        (folder / name).write_text("evil")
        report = checkpoints.verify(folder)
        assert (report.verdict, name in report.reason) == (Verdict.CORRUPT, True)
        (folder / name).unlink()
    (folder / "custom.py").symlink_to("/etc/hostname")
    assert checkpoints.verify(folder).verdict is Verdict.CORRUPT


def test_the_step_is_told_thrice_and_all_three_must_agree(layout: Layout) -> None:
    """Name, manifest and Hugging Face's own state: a state of another step that was committed is found too."""
    staging = layout.root / "staging"
    staging.mkdir()
    (staging / "trainer_state.json").write_text('{"global_step": 24}')
    manifest = checkpoints.read_manifest(layout.checkpoint(20))
    from dataclasses import replace

    checkpoints.commit(staging, layout.checkpoint(25), replace(manifest, step=25, job_step=25))
    report = checkpoints.verify(layout.checkpoint(25))
    assert report.verdict is Verdict.CORRUPT
    assert "trainer_state.json says step 24" in report.reason
    layout.checkpoint(20).rename(layout.checkpoint(30))
    assert "name says step 30, the manifest says step 20" in checkpoints.verify(layout.checkpoint(30)).reason


def test_a_checkpoint_of_another_models_history_is_foreign_and_left_alone(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    shutil.copytree(layout.root, other.root)
    (other.state / "run.json").unlink()
    shutil.rmtree(other.model)
    staging = other.root / "staging"
    staging.mkdir()
    (staging / "weights").write_bytes(b"theirs")
    manifest = checkpoints.read_manifest(layout.checkpoint(20))
    from dataclasses import replace

    checkpoints.commit(staging, other.checkpoint(99), replace(manifest, step=99, job_step=99))
    shutil.copytree(other.checkpoint(99), layout.checkpoint(99))
    newest, passed_over = checkpoints.newest_verified(layout.model)
    assert newest is not None
    assert newest.step == 20
    assert passed_over[0].verdict is Verdict.FOREIGN
    assert "another model's history" in passed_over[0].reason


def test_a_lost_identity_is_told_by_the_manifests_again(layout: Layout) -> None:
    from overnight.disk import run_identity

    before = run_identity.read(layout.model)
    assert before
    (layout.state / "run.json").write_text("{torn")
    assert checkpoints.verify(layout.checkpoint(20)).verdict is Verdict.VERIFIED
    staging = layout.root / "staging"
    staging.mkdir()
    (staging / "weights").write_bytes(b"w")
    from dataclasses import replace

    manifest = replace(checkpoints.read_manifest(layout.checkpoint(20)), step=25, job_step=25)
    checkpoints.commit(staging, layout.checkpoint(25), manifest)
    assert run_identity.read(layout.model) == before
