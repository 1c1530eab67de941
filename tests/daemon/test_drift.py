"""Sixty ways in which settings, base and lock drift apart: all stopped before a trainer starts; harmless edits not.

Each case is a copy of a workspace with one trained job and one that waits, under the real dispatcher.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import corrupt
from overnight.control.verifying import verify
from overnight.disk import builtin
from overnight.disk.layout import Layout
from simulated_rig import Rig

Edit = Callable[[Layout], None]
BASE = "models/base"
SETTINGS: dict[str, Any] = {
    "base_model": BASE, "lora": {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Make the workspace that is copied: job 1 is trained, job 2 waits, the queue is paused."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("trained") / "workspace", patch)
        rig.make(rows=24, files=1, checkpoint__every_steps=2, **SETTINGS)
        builtin.make_tiny(rig.layout.root / BASE)
        rig.simulate(step_s=0)
        context = rig.context()
        rig.tick_until(context, rig.is_done)
        rig.wish("paused")
        rig.tick_until(context, lambda: context.standing.state == "paused")
        rig.submit("next.jsonl", rows=8)
        rig.settle()
        yield rig


def setting(name: str, value: Any) -> Edit:
    """Change one setting, by dotted key; None removes it."""

    def edit(layout: Layout) -> None:
        values = json.loads(layout.config.read_text())
        *sections, key = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
        layout.config.write_text(json.dumps(values))

    return edit


def without(name: str) -> Edit:
    def edit(layout: Layout) -> None:
        values = json.loads(layout.config.read_text())
        *sections, key = name.split(".")
        place = values
        for section in sections:
            place = place[section]
        place.pop(key)
        layout.config.write_text(json.dumps(values))

    return edit


def base_file(name: str, change: Callable[[bytes], bytes], *, hide: bool = False) -> Edit:
    """Change a file of the base model under the same path, perhaps with its times set back."""

    def edit(layout: Layout) -> None:
        path = layout.root / BASE / name
        facts = path.stat()
        path.write_bytes(change(path.read_bytes()))
        if hide:
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    return edit


def base_text(name: str, text: str) -> Edit:
    return lambda layout: (layout.root / BASE / name).write_text(text) and None


def flip(data: bytes) -> bytes:
    at = len(data) * 3 // 4
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def other_base(layout: Layout) -> Path:
    """Make another model beside the base: one bit differs."""
    other = layout.root / "models" / "other"
    shutil.copytree(layout.root / BASE, other)
    path = other / "model.safetensors"
    path.write_bytes(flip(path.read_bytes()))
    return other


def repoint(layout: Layout) -> None:
    other = other_base(layout)
    (layout.root / BASE).rename(layout.root / "models" / "old")
    (layout.root / BASE).symlink_to(other)


def replace_by_rename(layout: Layout) -> None:
    other = other_base(layout)
    (layout.root / BASE).rename(layout.root / "models" / "old")
    other.rename(layout.root / BASE)


def link_one_file(layout: Layout) -> None:
    other = other_base(layout)
    path = layout.root / BASE / "model.safetensors"
    path.unlink()
    path.symlink_to(other / "model.safetensors")


def lock_file(text: str | None) -> Edit:
    def edit(layout: Layout) -> None:
        layout.config_lock.unlink(missing_ok=True)
        if text is not None:
            layout.config_lock.write_text(text)

    return edit


def lock_that_says(**locked: Any) -> Edit:
    """Edit the lock file so that it agrees with a drift."""

    def edit(layout: Layout) -> None:
        value = json.loads(layout.config_lock.read_text())
        value["locked"] = {**value["locked"], **locked}
        layout.config_lock.write_text(json.dumps(value))

    return edit


def both(*edits: Edit) -> Edit:
    def edit(layout: Layout) -> None:
        for one in edits:
            one(layout)

    return edit


def newest(layout: Layout) -> Path:
    return max(layout.model.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))


def all_manifests(text: str | None) -> Edit:
    def edit(layout: Layout) -> None:
        for folder in layout.model.glob("checkpoint-*"):
            (folder / "manifest.json").unlink()
            if text is not None:
                (folder / "manifest.json").write_text(text)

    return edit


LOCKED: dict[str, list[Any]] = {
    "model_name": ["another", "Simulated"],
    "base_model": ["builtin:tiny", "org/some-model", "models/other"],
    "max_length": [512, 2048, 1023],
    "method": ["full", "qlora"],
    "seed": [43, 0, 2**31 - 1],
    "lora.r": [8, 32, 17],
    "lora.alpha": [16, 64],
    "lora.dropout": [0.0, 0.1, 0.050000001],
    "lora.target_modules": ["all-linear", ["q_proj"], ["q_proj", "k_proj"]],
}
DRIFTS: dict[str, tuple[Edit, str]] = {
    **{
        f"{key} becomes {value}": (
            both(lambda layout: other_base(layout) and None, setting(key, value)),
            f"CRITICAL: Cannot change '{key}' while checkpoints exist",
        )
        for key, values in LOCKED.items()
        for value in values
    },
    "target_modules taken out": (without("lora.target_modules"), "Cannot change 'lora.target_modules'"),
    "the whole section lora taken out": (without("lora"), "Cannot change"),
    "two locked keys at once": (both(setting("seed", 1), setting("max_length", 8)), "max_length"),
    # content under the same path
    "a bit of the base's weights": (base_file("model.safetensors", flip), "The base model is not the one"),
    "a bit of them, the times set back": (base_file("model.safetensors", flip, hide=True), "The base model is not"),
    "the base's weights cut": (base_file("model.safetensors", lambda data: data[:-9]), "The base model is not"),
    "the base's weights zeroed": (base_file("model.safetensors", lambda d: bytes(len(d))), "The base model is not"),
    "the base's weights gone": (lambda layout: (layout.root / BASE / "model.safetensors").unlink(), "The base model"),
    "more weights beside them": (base_text("model-2.safetensors", "x"), "The base model is not the one"),
    "an older format beside them": (base_text("pytorch_model.bin", "x"), "The base model is not the one"),
    "the base's own settings": (base_file("config.json", lambda data: data.replace(b"2", b"4", 1)), "The base model"),
    "its generation settings": (base_text("generation_config.json", '{"do_sample": true}'), "The base model is not"),
    "the base's folder gone": (lambda layout: shutil.rmtree(layout.root / BASE), "The base model's folder is gone"),
    "the base's settings gone": (lambda layout: (layout.root / BASE / "config.json").unlink(), "The base model"),
    "a link to another model": (repoint, "The base model is not the one"),
    "another model under the old name": (replace_by_rename, "The base model is not the one"),
    "a file that is a link now": (link_one_file, "The base model is not the one"),
    # tokenizer and template
    "a word of the tokenizer": (base_file("tokenizer.json", flip), "tokenizer or chat template"),
    "the tokenizer, times set back": (base_file("tokenizer.json", flip, hide=True), "tokenizer or chat template"),
    "the tokenizer gone": (lambda layout: (layout.root / BASE / "tokenizer.json").unlink(), "tokenizer or chat"),
    "another chat template": (base_text("chat_template.jinja", "{{ messages }}!"), "tokenizer or chat template"),
    "the tokenizer's settings": (base_text("tokenizer_config.json", "{}"), "tokenizer or chat template"),
    "a map of special tokens": (base_text("special_tokens_map.json", '{"eos_token": "x"}'), "tokenizer or chat"),
    # the lock file deleted or edited changes nothing
    "seed, the lock file deleted": (both(setting("seed", 5), lock_file(None)), "Cannot change 'seed'"),
    "seed, the lock file emptied": (both(setting("seed", 5), lock_file("")), "Cannot change 'seed'"),
    "seed, the lock file torn": (both(setting("seed", 5), lock_file('{"locked": {')), "Cannot change 'seed'"),
    "seed, the lock file agreeing": (both(setting("seed", 5), lock_that_says(seed=5)), "Cannot change 'seed'"),
    "rank, the lock file agreeing": (
        both(setting("lora.r", 5), lock_that_says(**{"lora.r": 5})), "Cannot change 'lora.r'",
    ),
    "base, the lock file deleted": (
        both(lambda layout: other_base(layout) and None, setting("base_model", "models/other"), lock_file(None)),
        "Cannot change 'base_model'",
    ),
    "a bit of the base, the lock file deleted": (
        both(base_file("model.safetensors", flip), lock_file(None)), "The base model is not the one",
    ),
    # the newest checkpoint cannot speak: an older one does; none can: nothing is open
    "seed, the newest manifest deleted": (
        both(setting("seed", 5), lambda layout: (newest(layout) / "manifest.json").unlink()), "Cannot change 'seed'",
    ),
    "seed, the newest checkpoint damaged": (
        both(setting("seed", 5), lambda layout: corrupt(newest(layout))), "Cannot change 'seed'",
    ),
    "seed, every manifest deleted": (both(setting("seed", 5), all_manifests(None)), "Cannot change 'seed'"),
    "seed, every manifest torn, the lock file agreeing": (
        both(setting("seed", 5), all_manifests("{"), lock_that_says(seed=5)), "No checkpoint can be trusted",
    ),
    "every manifest and the lock file gone": (both(all_manifests(None), lock_file(None)), "Nobody can tell"),
    "the memory of fingerprints edited": (
        both(
            base_file("model.safetensors", flip),
            lambda layout: (layout.state / "fingerprints.json").write_text('{"schema": 1, "files": {}}') and None,
        ),
        "The base model is not the one",
    ),
    # what is no setting, or contradicts another one, starts nothing either
    "a misspelt key": (setting("sede", 5), "'sede' is no setting"),
    "limits that exclude each other": (setting("watch.no_progress_s", 5000.0), "'watch.stuck_s'"),
}  # fmt: skip


def touch_all(layout: Layout) -> None:
    for path in (layout.root / BASE).iterdir():
        os.utime(path)


def copy_base(layout: Layout) -> None:
    shutil.copytree(layout.root / BASE, layout.root / "models" / "copy")
    shutil.rmtree(layout.root / BASE)
    (layout.root / "models" / "copy").rename(layout.root / BASE)


def link_base(layout: Layout) -> None:
    (layout.root / BASE).rename(layout.root / "models" / "elsewhere")
    (layout.root / BASE).symlink_to(layout.root / "models" / "elsewhere")


def rewrite(**dump: Any) -> Edit:
    return lambda layout: layout.config.write_text(json.dumps(json.loads(layout.config.read_text()), **dump)) and None


HARMLESS: dict[str, Edit] = {
    "learning rate": setting("train.learning_rate", 1e-4),
    "scheduler": setting("train.lr_scheduler", "cosine"),
    "warm-up": setting("train.warmup_steps", 3),
    "epochs": setting("train.epochs", 2),
    "batch size": setting("train.batch_size", 2),
    "accumulation": setting("train.gradient_accumulation_steps", 2),
    "supervision": setting("train.supervise", "all"),
    "threads": setting("train.threads", 2),
    "save interval": setting("checkpoint.every_steps", 3),
    "checkpoints kept": setting("checkpoint.keep", 9),
    "held-out share": setting("evaluation.holdout", 0.1),
    "evaluation interval": setting("evaluation.every_steps", 7),
    "evaluation gate": setting("evaluation.gate", "off"),
    "tries": setting("queue.max_attempts", 5),
    "bad rows": setting("queue.bad_rows", "skip"),
    "a watch limit": setting("watch.grace_s", 20.0),
    "two limits together": both(setting("watch.no_progress_s", 1000.0), setting("watch.stuck_s", 1000.0)),
    "trash days": setting("disk.trash_days", 3.0),
    "web port": setting("server.port", 0),
    "notices": setting("notify.on", ["failed"]),
    "order of keys": rewrite(sort_keys=True),
    "spacing": rewrite(indent=7),
    "the schema named": setting("$schema", "./config.schema.json"),
    "order of target modules": setting("lora.target_modules", ["v_proj", "q_proj"]),
    "a default written out": setting("seed", 42),
    "a default taken out": without("lora.r"),
    "a note beside the base": base_text("README.md", "notes"),
    "a licence beside the base": base_text("LICENSE.txt", "free"),
    "the base touched": touch_all,
    "the base copied back from a backup": copy_base,
    "the base moved, a link in its place": link_base,
    "the lock file deleted": lock_file(None),
    "the lock file torn": lock_file("{"),
    "the lock file edited": lock_that_says(seed=99),
    "the memory of fingerprints torn": lambda layout: (layout.state / "fingerprints.json").write_text("{") and None,
    "the newest checkpoint damaged": lambda layout: corrupt(newest(layout)),
}


def test_there_are_sixty_drifts_and_thirty_harmless_edits() -> None:
    assert len(DRIFTS) >= 60
    assert len(HARMLESS) >= 30


@pytest.fixture
def copied(trained: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path / "workspace", monkeypatch)
    shutil.copytree(trained.layout.root, rig.layout.root, symlinks=True)
    rig.simulate(step_s=0)
    yield rig
    rig.end()


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_drift_is_stopped_before_a_trainer_starts_and_named_by_verifier_and_dispatcher_alike(
    copied: Rig, drift: str
) -> None:
    edit, words = DRIFTS[drift]
    edit(copied.layout)
    begun = len(copied.attempts())
    copied.withdraw("paused")
    context = copied.context()
    copied.tick_until(context, lambda: context.standing.state == "waiting")
    assert words in context.standing.reason
    for _ in range(5):
        copied.tick_until(context, lambda: True)
    assert len(copied.attempts()) == begun, "an attempt was begun all the same"
    connection = copied.connect()
    verdict = verify(copied.layout, connection)
    connection.close()
    assert not verdict.is_ok
    assert all(problem.message and problem.fix for problem in verdict.problems)


@pytest.mark.parametrize("edit", HARMLESS)
def test_a_harmless_edit_stops_nothing(copied: Rig, edit: str) -> None:
    begun = len(copied.attempts())
    HARMLESS[edit](copied.layout)
    copied.withdraw("paused")
    context = copied.context()
    copied.tick_until(context, lambda: len(copied.attempts()) > begun)
    assert copied.attempts()[-1].job == 2
