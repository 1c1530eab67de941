"""Train, publish, train, publish, go back twice and forward again: each place is what it was, to the last bit."""

from __future__ import annotations

import json

import pytest

from overnight.disk import locked, versions
from overnight.disk.checkpoints import newest_verified
from overnight.domain.errors import FailedError, UsageError
from overnight.status.snapshot import snapshot
from version_rig import VersionRig


def test_back_twice_and_forward_once_each_place_is_what_it_was(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    at_base = rig.here()
    first = rig.consolidate("the first")
    at_first = rig.here()
    rig.train("b.jsonl")
    rig.consolidate("the second")
    at_second = rig.here()
    assert first.step == 8
    assert len({json.dumps(place) for place in (at_base, at_first, at_second)}) == 3

    done = rig.roll_back()
    assert (done.version, done.step) == ("v001", 8)
    assert rig.here() == at_first
    done = rig.roll_back()
    assert (done.version, done.step, done.checkpoint) == (None, 8, 8)
    assert rig.here() == at_base
    rig.roll_back("v001")
    assert rig.here() == at_first
    rig.roll_back("v002")
    assert rig.here() == at_second
    rig.roll_back("base")
    assert rig.here() == at_base
    with pytest.raises(UsageError):
        rig.roll_back()


def test_steps_go_on_and_the_next_job_is_trained_on_the_new_base(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    trained = rig.model()
    version = rig.consolidate()
    connection = rig.connect()
    shot = snapshot(rig.layout, connection, now=0)
    assert (shot.version, shot.step, shot.total) == ("v001", 8, 8)
    assert locked.read(rig.layout).values["base_model"] == "models/v001"
    rig.train("b.jsonl")
    newest, _ = newest_verified(rig.layout.model)
    assert newest is not None
    assert newest.manifest is not None
    assert (newest.step, newest.manifest.start_step) == (16, 8)
    assert newest.manifest.fingerprints["base_model"] == version.fingerprints["base_model"]
    assert newest.manifest.locked["base_model"] == "models/v001"
    assert rig.model()["ledger"][: len(trained["ledger"])] == trained["ledger"], "it goes on from what was trained"
    shot = snapshot(rig.layout, connection, now=0)
    assert (shot.version, shot.step) == ("v001", 16)
    connection.close()
    second = rig.consolidate()
    assert second.parent == "v001"
    assert second.base_fingerprint == version.fingerprints["base_model"]
    assert [one["file"] for one in second.datasets] == ["b.jsonl"]
    assert [one["file"] for one in version.datasets] == ["a.jsonl"]


def test_what_was_trained_on_a_version_is_kept_when_it_is_left_and_comes_back(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    published = rig.here()
    rig.train("b.jsonl")
    trained = rig.here()
    rig.roll_back("base")
    rig.train("c.jsonl")
    other = rig.here()
    rig.roll_back("v001")
    assert rig.here() == trained
    rig.roll_back("base")
    assert rig.here() == other
    rig.roll_back("v001")
    rig.roll_back("v001")
    assert {k: v for k, v in rig.here().items() if "lock" not in k} == {
        k: v for k, v in published.items() if "lock" not in k
    }
    rig.roll_back("v001")
    assert rig.here() == trained
    version = rig.consolidate()
    assert [one["file"] for one in version.datasets] == ["b.jsonl"], "not what was trained beside it"


def test_settings_that_belong_to_nobody_stay_as_the_user_set_them(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    values = json.loads(rig.layout.config.read_text())
    values["train"]["learning_rate"] = 1e-5
    rig.layout.config.write_text(json.dumps(values))
    rig.roll_back()
    now = json.loads(rig.layout.config.read_text())
    assert (now["base_model"], now["train"]["learning_rate"]) == ("builtin:tiny", 1e-5)


def test_nothing_trained_is_nothing_to_publish(rig: VersionRig) -> None:
    with pytest.raises(FailedError, match="Nothing was trained yet"):
        rig.consolidate()
    rig.train("a.jsonl")
    rig.consolidate()
    with pytest.raises(FailedError, match="Nothing was trained since v001"):
        rig.consolidate()
    assert versions.identities(rig.layout) == ["v001"]


@pytest.mark.parametrize("identity", ["v1", "v01", "v0001", "v002", "v", "", "../v001", "v001/"])
def test_only_an_exact_id_is_put_in_use(rig: VersionRig, identity: str) -> None:
    with pytest.raises(UsageError):
        rig.roll_back(identity)
