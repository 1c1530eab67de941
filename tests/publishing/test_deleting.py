"""A version is deleted whole or not at all, whoever is killed over it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from overnight.database import events
from overnight.database.connection import connect
from overnight.disk import trash, versions
from overnight.domain.version import VersionState
from overnight.publishing import deleting, settling
from strikes import until_it_survives
from version_rig import VersionRig


@pytest.fixture
def spare(rig: VersionRig) -> VersionRig:
    """A workspace whose version is not in use, and has checkpoints of its own."""
    rig.train("a.jsonl", rows=16)
    rig.consolidate("the first")
    rig.train("b.jsonl", rows=16)
    rig.roll_back("base")
    rig.train("c.jsonl", rows=16)
    rig.consolidate("the second")
    rig.roll_back("base")
    rig.settle()
    return rig


def test_killed_at_each_point_of_a_deletion_the_next_command_brings_it_to_its_end(
    spare: VersionRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spare.layout.root
    outcomes: set[bool] = set()
    copy = VersionRig.at(whole)

    def prepare() -> None:
        nonlocal copy
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "copy", symlinks=True)
        copy = VersionRig.at(tmp_path / "copy", monkeypatch)

    def delete() -> None:
        connection = connect(copy.layout.database)
        deleting.delete(copy.layout, connection, "v001", now=time.time())

    def check() -> None:
        connection = connect(copy.layout.database)
        assert settling.settle_if_possible(copy.layout, connection)
        outcomes.add(is_deleted(copy, connection))
        connection.close()

    # the calls of SQLite are not among them; what is left to be killed is the plan, and the moves
    assert until_it_survives(delete, check, prepare, every=3) > 3
    assert outcomes == {False, True}


def is_deleted(rig: VersionRig, connection: sqlite3.Connection) -> bool:
    """Return whether the version is gone with all that was its own; fail where it is anything between."""
    own = {"on-v001.1"}
    there = own & set(os.listdir(rig.layout.history))
    resting = {item.name.partition(".")[0] for item in trash.listing(rig.layout)}
    told = len(events.of_kind_after(connection, "version.deleted", 0))
    assert not rig.layout.transition.exists()
    if (rig.layout.versions / "v001").exists():
        assert (there, told, resting) == (own, 0, set())
        assert versions.verify(rig.layout.versions / "v001").state is VersionState.OK
        return False
    assert (there, told) == (set(), 1)
    assert resting >= {"v001", "on-v001"}
    return True


def test_what_goes_with_a_version_is_told(spare: VersionRig) -> None:
    words = deleting.plan(spare.layout, "v001").words
    assert words == "v001, with checkpoint-8 of its own,"
    connection = spare.connect()
    deleting.delete(spare.layout, connection, "v001", now=time.time())
    connection.close()
    assert spare.events("version.deleted")[0]["message"].startswith(f"{words} is deleted")


def test_a_version_that_was_deleted_and_brought_back_stays(spare: VersionRig) -> None:
    connection = spare.connect()
    deleting.delete(spare.layout, connection, "v001", now=time.time())
    (resting,) = spare.layout.trash.glob("v001.*")
    shutil.copytree(resting, spare.layout.versions / "v001")
    assert settling.settle_if_possible(spare.layout, connection)
    connection.close()
    assert (spare.layout.versions / "v001").is_dir()
