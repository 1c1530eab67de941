"""Years later: tens of thousands of jobs behind it, steps beyond 2**31, and a tick is as quick as on the first day."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from overnight.daemon import cleanup, loop
from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.disk import checkpoints
from overnight.domain.checkpoint import Manifest
from overnight.status import snapshot, to_json
from simulated_rig import Rig

DONE = 50_000
TICK_CPU_S = 0.5
"""What a step of the loop, or a look at the status, may cost: some ten times what it takes."""

EDGE = 2**31


def live_long(rig: Rig) -> None:
    """Write down a long history: jobs, attempts and events as they are stored, and folders of many of them."""
    connection = rig.connect()
    numbers = range(2, DONE + 2)
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO jobs (claim, file, sha256, dataset, state, priority, examples, steps, attempts, start_step,"
        " submitted_at, finished_at, filed, reason)"
        " VALUES (?, ?, ?, ?, 'succeeded', 'normal', 4, 1, 1, ?, ?, ?, 1, '')",
        ((f"c{n}", f"f{n}.jsonl", f"{n:064d}", f"{n:064d}", n, 1e9 + n, 1e9 + n) for n in numbers),
    )
    connection.executemany(
        "INSERT INTO attempts (id, job, number, state, outcome, reason, started_at, ended_at, exit_code, first_step,"
        " last_step, settled) VALUES (?, ?, 1, 'ended', 'completed', 'trained', ?, ?, 0, ?, ?, 1)",
        ((f"{n:06d}-01", n, 1e9 + n, 1e9 + n, n, n + 1) for n in numbers),
    )
    connection.executemany(
        "INSERT INTO events (at, kind, level, message, data) VALUES (?, ?, 'info', 'x', ?)",
        ((1e9 + n, kind, json.dumps({"job": n})) for n in numbers for kind in ("job.dispatch", "job.finish")),
    )
    connection.execute("COMMIT")
    connection.close()
    for number in itertools.islice(numbers, 2000):
        folder = rig.layout.attempt(f"{number:06d}-01")
        folder.mkdir()
        (folder / "trainer.log").write_bytes(b"said\n")
        (folder / "watched").write_bytes(b"")
        (rig.layout.done / f"f{number}.jsonl").write_bytes(b"{}\n")


def test_fifty_thousand_jobs_later_a_tick_is_as_quick_and_only_what_has_ended_is_tidied(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.simulate(step_s=0)
    rig.make(files=1)
    first = rig.context()
    rig.tick_until(first, lambda: rig.is_done() and rig.jobs()[0].filed)
    live_long(rig)

    costs: dict[str, float] = {}

    def weighed(name: str, step: loop.Step) -> loop.Step:
        def run(context: Context, now: Moment) -> None:
            began = time.thread_time()
            step(context, now)
            costs[name] = max(costs.get(name, 0.0), time.thread_time() - began)

        return run

    tidied: list[str] = []
    really: Callable[..., None] = cleanup._tidy_attempt
    monkeypatch.setattr(cleanup, "_tidy_attempt", lambda layout, path: (tidied.append(path.name), really(layout, path)))
    monkeypatch.setattr(loop, "STEPS", tuple((name, weighed(name, step)) for name, step in loop.STEPS))
    context = rig.context()
    rig.tick_until(context, lambda: context.memory.get("untidied") == [])
    assert len(tidied) == 2001
    assert not any(rig.layout.attempts.glob("*/watched"))
    tidied.clear()

    job = rig.submit("new.jsonl", rows=16)
    last = rig.tick_until(context, lambda: _filed(context, job.id))
    loop.tick(context)
    assert last.state.value == "succeeded"
    assert tidied == [f"{job.id:06d}-01"]
    assert {name: cost for name, cost in costs.items() if cost > TICK_CPU_S} == {}

    began = time.thread_time()
    picture = to_json(snapshot(rig.layout, context.connection, now=time.time()))
    assert time.thread_time() - began < TICK_CPU_S
    assert picture["queue"]["succeeded"] == DONE + 2


def _filed(context: Context, job: int) -> Any:
    found = queue.find(context.connection, job)
    return found if found is not None and found.filed else None


def test_steps_pass_two_to_the_thirty_one_like_any_other(rig: Rig) -> None:
    rig.simulate(step_s=0)
    rig.make(files=1)
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    lift(rig, to=EDGE - 8)
    rig.submit("another.jsonl")
    rig.simulate(fault="kill@12:1")
    rig.tick_until(context, lambda: len(rig.jobs()) == 2 and rig.is_done())
    first, second = rig.attempts()[1:]
    assert (first.first_step, second.first_step) == (EDGE - 8, EDGE + 2)
    assert rig.events("attempt.not_exact") == []
    newest, passed_over = checkpoints.newest_verified(rig.layout.model)
    assert newest is not None
    assert (newest.step, passed_over) == (EDGE + 8, [])
    assert rig.model()["step"] == EDGE + 8
    connection = rig.connect()
    picture = to_json(snapshot(rig.layout, connection, now=time.time()))
    connection.close()
    assert (picture["step"], picture["total"]) == (EDGE + 8, EDGE + 8)
    rig.tick_until(context, lambda: json.loads(rig.layout.status_file.read_text())["step"] == EDGE + 8)


def lift(rig: Rig, *, to: int) -> None:
    """Let the model have made so many steps: its newest checkpoint again, under a later step."""
    newest, _ = checkpoints.newest_verified(rig.layout.model)
    assert newest is not None
    assert newest.manifest is not None
    staging = rig.layout.model / ".lifted.staging"
    staging.mkdir()
    state = {**rig.model(), "step": to}
    (staging / "state.json").write_text(json.dumps(state))
    facts = newest.manifest
    manifest = Manifest(
        step=to, job=facts.job, job_step=facts.job_step, job_total=facts.job_total, start_step=to - facts.job_step,
        attempt=facts.attempt, dataset_id=facts.dataset_id, created_at=facts.created_at, model_name=facts.model_name,
        method=facts.method, locked=facts.locked, data_cursor=facts.data_cursor, fingerprints=facts.fingerprints,
        environment=facts.environment, files={},
    )  # fmt: skip
    checkpoints.commit(staging, rig.layout.checkpoint(to), manifest)
