"""A copy comes back whole, where it belongs, never over what is whole, and killed anywhere there is old or new."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import sqlite3
import stat
import time
from pathlib import Path

import pytest

from checkpoint_rig import commit_steps, corrupt, names
from overnight.control import copies
from overnight.daemon import backing
from overnight.disk import backups, builtin, checkpoints, files, sealed, versions, workspace
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Verdict
from overnight.domain.errors import BusyError, ConfigError, DiskError, FailedError, UsageError
from overnight.domain.version import VersionState
from overnight.publishing import restoring
from simulated_rig import Rig
from strikes import until_it_survives
from version_rig import BLANK, VersionRig


class Given:
    """A workspace with three checkpoints and a version, and copies of all of them."""

    def __init__(self, rig: Rig, place: Path) -> None:
        self.rig, self.layout, self.place = rig, rig.layout, place
        commit_steps(self.layout, 9, 10, 100)
        staging = versions.make_staging(self.layout, "v001")
        (staging / "model.safetensors").write_bytes(b"weights" * 500)
        (staging / "config.json").write_text("{}")
        versions.seal(staging, dataclasses.replace(BLANK))
        staging.rename(self.layout.versions / "v001")
        place.mkdir()
        backups.open_place(self.layout, place, known=None, model_name="m", now=1.0)
        for name in ("checkpoint-9", "checkpoint-10", "checkpoint-100", "v001"):
            backups.store(self.layout, place, name)

    def restore(self, name: str, *, newer: bool = False, layout: Layout | None = None) -> restoring.Restored:
        connection = self.rig.connect()
        try:
            return restoring.restore(
                layout or self.layout, connection, name, source=self.place, set_newer_aside=newer, now=time.time()
            )
        finally:
            connection.close()

    def copy(self, name: str) -> Path:
        return backups.folder_of(self.place, name)


@pytest.fixture
def given(rig: Rig, tmp_path: Path) -> Given:
    return Given(rig, tmp_path / "second")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_lost_checkpoint_comes_back_byte_for_byte(given: Given) -> None:
    before = bytes_of(given.layout.checkpoint(100))
    shutil.rmtree(given.layout.checkpoint(100))
    done = given.restore("checkpoint-100")
    assert done.is_changed
    assert bytes_of(given.layout.checkpoint(100)) == before
    newest, passed_over = checkpoints.newest_verified(given.layout.model)
    assert newest is not None
    assert (newest.step, passed_over) == (100, [])
    assert [path.name for path in given.layout.model.iterdir() if path.name.endswith("staging")] == []
    assert given.rig.events("backup.restored")[0]["data"]["name"] == "checkpoint-100"


def test_a_damaged_checkpoint_is_set_aside_and_a_whole_one_is_left_alone(given: Given) -> None:
    assert not given.restore("checkpoint-100").is_changed
    before = bytes_of(given.layout.checkpoint(100))
    corrupt(given.layout.checkpoint(100))
    done = given.restore("checkpoint-100")
    assert bytes_of(given.layout.checkpoint(100)) == before
    assert [Path(path).parent for path in done.set_aside] == [given.layout.trash]


def test_a_damaged_or_lost_version_comes_back_sealed(given: Given) -> None:
    folder = given.layout.versions / "v001"
    before = bytes_of(folder)
    assert not given.restore("v001").is_changed
    (folder / "model.safetensors").chmod(0o644)
    (folder / "model.safetensors").write_bytes(b"other")
    given.restore("v001")
    assert bytes_of(folder) == before
    assert versions.verify(folder).state is VersionState.OK
    assert {stat.S_IMODE(path.lstat().st_mode) & 0o222 for path in [folder, *folder.rglob("*")]} == {0}
    assert list(given.layout.trash.iterdir()) != []


@pytest.mark.parametrize("name", ["checkpoint-100", "v001"])
def test_a_damaged_copy_is_never_brought_back(given: Given, name: str) -> None:
    corrupt(given.copy(name)) if name != "v001" else (given.copy(name) / "model.safetensors").write_bytes(b"w" * 3500)
    original = backups.source_of(given.layout, name)
    shutil.move(original, original.with_name(f".{name}-elsewhere"))
    before = names(given.layout)
    with pytest.raises(FailedError, match="damaged"):
        given.restore(name)
    assert not original.exists()
    assert names(given.layout) == before


def test_what_is_whole_is_never_replaced_by_another_of_its_name(given: Given) -> None:
    folder = given.layout.checkpoint(100)
    manifest = checkpoints.read_manifest(folder)
    shutil.rmtree(folder)
    staging = given.layout.root / "again"
    staging.mkdir()
    (staging / "weights").write_bytes(b"of another branch")
    checkpoints.commit(staging, folder, dataclasses.replace(manifest, files={}))
    with pytest.raises(FailedError, match="Another checkpoint-100 is here"):
        given.restore("checkpoint-100")


def test_an_older_checkpoint_comes_back_only_where_going_back_is_wished(given: Given) -> None:
    shutil.rmtree(given.layout.checkpoint(9))
    before = names(given.layout)
    with pytest.raises(FailedError, match="older than where the model stands"):
        given.restore("checkpoint-9")
    assert names(given.layout) == before
    done = given.restore("checkpoint-9", newer=True)
    assert names(given.layout) == {"checkpoint-9"}
    assert [Path(path).name.partition(".")[0] for path in done.set_aside] == ["checkpoint-10", "checkpoint-100"]


def test_going_back_that_was_killed_half_way_is_completed_by_the_same_command(given: Given) -> None:
    """The older one is back, and the newer ones are not all aside yet."""
    checkpoints.set_aside(given.layout.checkpoint(10), given.layout.trash)
    assert "--set-newer-aside goes back" in given.restore("checkpoint-9").message
    done = given.restore("checkpoint-9", newer=True)
    assert done.is_changed
    assert names(given.layout) == {"checkpoint-9"}
    assert [Path(path).name.partition(".")[0] for path in done.set_aside] == ["checkpoint-100"]


@pytest.mark.parametrize("name", ["checkpoint-100", "v001"])
def test_it_is_put_together_on_the_disk_where_it_belongs(
    given: Given, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = backups.source_of(given.layout, name)
    shutil.move(original, given.layout.root / "elsewhere")
    rename = os.rename

    def on_two_disks(source: Path, target: Path) -> None:
        if (given.layout.state in Path(source).parents) is not (given.layout.state in Path(target).parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", on_two_disks)
    assert given.restore(name).is_changed
    assert [path.name for path in original.parent.iterdir() if path.name.endswith(".staging")] == []


@pytest.mark.parametrize("name", ["v1", "v002", "checkpoint-1", "checkpoint-0100", "../checkpoint-100", "checkpoint"])
def test_names_are_exact(given: Given, name: str) -> None:
    with pytest.raises(UsageError):
        given.restore(name)


def test_nothing_is_brought_back_while_a_trainer_holds_the_model(given: Given) -> None:
    lock = files.Lock(given.layout.model_lock)
    assert lock.acquire(holder={"pid": 1, "attempt": "000001-01"})
    shutil.rmtree(given.layout.checkpoint(100))
    with pytest.raises(BusyError, match="training is active"):
        given.restore("checkpoint-100")
    lock.release()
    assert given.restore("checkpoint-100").is_changed


def test_a_copy_of_another_model_or_of_other_settings_is_refused(given: Given, tmp_path: Path) -> None:
    shutil.rmtree(given.layout.checkpoint(100))
    (given.layout.state / "run.json").write_text(json.dumps({"schema": 1, "run": "another"}))
    with pytest.raises(FailedError, match="another model's history"):
        given.restore("checkpoint-100")
    assert "checkpoint-100" not in names(given.layout)


def test_settings_that_do_not_belong_to_the_checkpoint_are_told_before_anything_is_touched(given: Given) -> None:
    folder = given.layout.checkpoint(100)
    manifest = checkpoints.read_manifest(folder)
    shutil.rmtree(folder)
    staging = given.layout.root / "again"
    staging.mkdir()
    (staging / "weights").write_bytes(b"w")
    checkpoints.commit(staging, folder, dataclasses.replace(manifest, files={}, locked={"lora.r": 3}))
    shutil.rmtree(given.copy("checkpoint-100"))
    backups.store(given.layout, given.place, "checkpoint-100")
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"lora\.r"):
        given.restore("checkpoint-100")
    assert not folder.exists()


def test_after_the_loss_of_everything_a_new_workspace_goes_on_from_the_copies(given: Given, tmp_path: Path) -> None:
    expected = bytes_of(given.layout.checkpoint(100))
    other = Rig(tmp_path / "new").make()
    connection = other.connect()
    builtin.make_tiny(other.layout.base / "tiny")
    done = restoring.restore(other.layout, connection, "checkpoint-100", source=given.place, now=1.0)
    connection.close()
    assert done.is_changed
    assert bytes_of(other.layout.checkpoint(100)) == expected
    assert checkpoints.verify(other.layout.checkpoint(100)).verdict is Verdict.VERIFIED
    assert workspace.open_workspace(other.layout.root) == other.layout


def test_a_place_that_is_not_there_is_told(given: Given, tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    connection.close()
    given.place = tmp_path / "empty"
    given.place.mkdir()
    with pytest.raises(DiskError, match="holds no copies"):
        given.restore("checkpoint-100")


@pytest.mark.parametrize("name", ["checkpoint-100", "v001"])
def test_killed_at_each_point_of_a_restore_there_is_the_old_or_the_new_and_the_next_one_completes_it(
    given: Given, name: str
) -> None:
    original = backups.source_of(given.layout, name)
    wanted = bytes_of(original)

    def prepare() -> None:
        target = next(path for path in sorted(original.iterdir()) if path.name in ("weights", "model.safetensors"))
        target.chmod(0o644)
        target.write_bytes(b"damaged" + target.read_bytes()[7:])

    def check() -> None:
        for found in (given.layout.model, given.layout.versions):
            for path in found.iterdir():
                if path.name == name:
                    now = bytes_of(path)
                    assert now == wanted or any(data.startswith(b"damaged") for data in now.values())
        given.restore(name)
        assert bytes_of(original) == wanted
        versions.remove_staging(given.layout)
        assert [path.name for path in given.layout.versions.iterdir()] == ["v001"]
        assert backups.listing(given.place, verify_content=True)[0].is_verified

    assert until_it_survives(lambda: given.restore(name), check, prepare, every=3) > 2


def test_a_version_in_use_that_was_lost_comes_back_from_its_copy_and_training_goes_on(
    rig: VersionRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "second"
    place.mkdir()
    monkeypatch.setattr(backing, "LOOK_S", 0.05)
    rig.train("a.jsonl", rows=16)
    backups.open_place(rig.layout, place, known=None, model_name="m", now=1.0)
    backups.store(rig.layout, place, "checkpoint-4")
    rig.consolidate("the first")
    config = json.loads(rig.layout.config.read_text())
    rig.layout.config.write_text(json.dumps({**config, "backup": {"path": str(place)}}))
    context = rig.context()
    rig.tick_until(
        context,
        lambda: "v001" in backups.names_in(place) and "backup" not in context.helpers,
        timeout=60,
    )
    rig.close(context)
    folder = rig.layout.versions / "v001"
    before = bytes_of(folder)
    rig.layout.versions.chmod(0o755)
    sealed.unseal_folders(folder)
    shutil.rmtree(folder)
    connection = rig.connect()
    assert restoring.restore(rig.layout, connection, "v001", now=time.time()).is_changed
    with pytest.raises(ConfigError, match="base"):  # it was trained on what v001 was made from
        restoring.restore(rig.layout, connection, "checkpoint-4", now=time.time())
    connection.close()
    assert bytes_of(folder) == before
    rig.layout.config.write_text(json.dumps(config))
    rig.train("b.jsonl", rows=16)
    assert rig.model()["step"] == 8


def test_verifying_a_version_reads_its_copy_too(given: Given) -> None:
    assert copies.copy_of(given.layout, "v001") is None, "no second place is set"
    given.rig.set(backup__path=str(given.place))
    whole = copies.copy_of(given.layout, "v001")
    assert whole is not None
    assert whole.is_verified
    (given.copy("v001") / "model.safetensors").write_bytes(b"w" * 3500)
    damaged = copies.copy_of(given.layout, "v001")
    assert damaged is not None
    assert not damaged.is_verified
    assert copies.copy_of(given.layout, "v002") is None
