"""Which jobs are in the model: through versions and rollbacks, for what a later job replays."""

from __future__ import annotations

from overnight.disk import attempts
from overnight.publishing import lineage
from version_rig import VersionRig


def jobs(rig: VersionRig) -> set[int] | None:
    connection = rig.connect()
    try:
        return lineage.jobs(rig.layout, connection)
    finally:
        connection.close()


def test_a_version_keeps_what_was_trained_before_it_and_a_rollback_gives_up_what_came_after(rig: VersionRig) -> None:
    rig.train("a.jsonl", rows=16)
    rig.consolidate("the first")
    assert jobs(rig) == {1}
    rig.train("b.jsonl", rows=16)
    assert jobs(rig) == {1, 2}
    rig.roll_back("v001")
    assert jobs(rig) == {1}
    rig.set(base_model="models/v001", train__replay=0.5)
    rig.train("c.jsonl", rows=16)
    spec = attempts.read_spec(max(rig.layout.attempts.iterdir()))
    assert [one["dataset"] for one in spec.rehearsal] == [rig.jobs()[0].dataset]
    assert jobs(rig) == {1, 3}
    assert lineage.step(rig.layout) == 4 + 8
