"""Which jobs are in the model: through versions and rollbacks, for what a later job replays."""

from __future__ import annotations

from typing import Any

from overnight.disk import attempts
from overnight.domain.job import JobState
from overnight.publishing import lineage
from overnight.status import judge, snapshot, to_json
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


def look(rig: VersionRig) -> dict[str, Any]:
    connection = rig.connect()
    try:
        return to_json(snapshot(rig.layout, connection, now=1e9))
    finally:
        connection.close()


def test_after_a_rollback_status_shows_the_loss_of_where_the_model_stands(rig: VersionRig) -> None:
    rig.train("a.jsonl", rows=16)
    first = look(rig)["loss"]
    version = rig.consolidate("the first")
    assert look(rig)["loss"] == version.metrics["loss"] == first
    rig.train("b.jsonl", rows=16)
    second = look(rig)["loss"]
    assert second not in (None, first)
    rig.roll_back("base")
    assert (look(rig)["step"], look(rig)["loss"]) == (4, first)
    rig.roll_back("v001")
    assert (look(rig)["step"], look(rig)["loss"]) == (8, second)
    rig.roll_back("v001")  # as it was published
    assert (look(rig)["step"], look(rig)["loss"]) == (4, first)


def test_a_half_trained_place_shows_the_loss_of_its_last_checkpoint(rig: VersionRig) -> None:
    rig.train("a.jsonl", rows=16)
    rig.consolidate("the first")
    rig.simulate(step_s=0.05)
    rig.submit("b.jsonl", rows=400)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 6, timeout=60)
    rig.wish("paused", reason="here")
    rig.tick_until(context, lambda: context.standing.state == "paused", timeout=60)
    rig.close(context)
    there = look(rig)
    assert there["loss"] is not None
    rig.roll_back("base")
    assert look(rig)["loss"] != there["loss"]
    rig.roll_back("v001")
    assert (look(rig)["step"], look(rig)["loss"]) == (there["step"], there["loss"])


def judged(rig: VersionRig, *, gate: str = "warn") -> None:
    """Publish one judged job, and train another one on it."""
    held_out = {"evaluation__holdout": 0.2, "evaluation__gate": gate}
    rig.set(**held_out)
    rig.train("a.jsonl", rows=20)
    rig.consolidate("the first")
    rig.set(base_model="models/v001", **held_out)
    rig.train("b.jsonl", rows=20)


def test_the_judge_knows_the_skills_of_the_model_in_use_and_of_no_other(rig: VersionRig) -> None:
    judged(rig)
    both = look(rig)["judge"]
    assert [one["file"] for one in both["skills"]] == ["a.jsonl", "b.jsonl"]
    rig.roll_back("v001")
    left = look(rig)["judge"]
    assert [one["file"] for one in left["skills"]] == ["a.jsonl"]
    assert left["last"]["is_current"] is False
    connection = rig.connect()
    matrix = judge.matrix(rig.layout, connection)
    assert [job["is_current"] for job in matrix["jobs"]] == [True, False]
    assert [one["file"] for one in matrix["skills"]] == ["a.jsonl"]
    assert [line[2] for line in judge.table(rig.layout, connection)] == ["passed", "passed; not in the model in use"]
    told = dict(judge.words(snapshot(rig.layout, connection, now=1e9).judged))
    connection.close()
    assert told["learnt"].endswith("; not in the model in use")
    assert told["forgotten"].startswith("a.jsonl")
    rig.roll_back("v001")  # and forward again
    assert look(rig)["judge"] == both


def test_after_a_rollback_a_job_is_not_judged_by_what_was_given_up(rig: VersionRig) -> None:
    judged(rig, gate="block")
    rig.roll_back("v001")
    rig.train("c.jsonl", rows=20)
    spec = attempts.read_spec(rig.layout.attempt("000003-01"))
    assert [one["file"] for one in spec.held_out if one["is_judged"]] == ["a.jsonl", "c.jsonl"]
    assert [one["file"] for one in spec.held_out] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [one["file"] for one in look(rig)["judge"]["skills"]] == ["a.jsonl", "c.jsonl"]


def test_a_job_that_the_gate_keeps_aside_is_no_part_of_a_version(rig: VersionRig) -> None:
    rig.set(evaluation__holdout=0.2, evaluation__gate="block")
    rig.train("a.jsonl", rows=20)
    rig.simulate(harm=2)
    rig.submit("harm.jsonl", rows=20)
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs()[1].state is JobState.FAILED, timeout=60)
    version = rig.consolidate("without it")
    assert [one["file"] for one in version.datasets] == ["a.jsonl"]
