"""What must hold at the end of a disturbed run, each broken promise as one line; and the undisturbed run beside it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.members import strays
from chaos.runner import Run
from chaos.workspace import Kind, Workspace, name_of, rows_of

GUARD_S = 5.0
"""So soon a guard that was killed is to be back."""

HALF_DONE = (".staging", ".tmp", ".part")


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What a workspace ended with."""

    step: int
    digest: dict[str, str]  # of each file of weights and optimizer in the newest checkpoint
    losses: dict[int, float]  # of each global step
    rows: list[str] | None  # each row consumed, in order, where the trainer keeps a ledger
    cursor: dict[str, Any]


@dataclass
class Verdict:
    """The judgement on one run."""

    complaints: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    is_equal: bool = False
    steps: int = 0
    late_guards: int = 0


def undisturbed(root: Path, kind: Kind, files: list[int], *, timeout: float = 3600) -> End:
    """Train the same files in the same order with nothing injected."""
    root.parent.mkdir(parents=True, exist_ok=True)
    if kind.simulated is not None:
        kind = replace(kind, simulated="step_s=0")  # how long a step takes is not part of it
    workspace = Workspace(root, kind).init()
    try:
        workspace.add(*files)
        workspace.up()
        deadline = time.monotonic() + timeout
        while len(workspace.done()) < len(files) and time.monotonic() < deadline:
            time.sleep(0.05)
        workspace.run("down", timeout=120)
        return end_of(workspace)
    finally:
        workspace.end()


def end_of(workspace: Workspace) -> End:
    """Read what a workspace ended with."""
    newest = workspace.newest()
    names = sorted(
        path.name for path in newest.iterdir()
        if path.suffix == ".safetensors" or path.name in ("optimizer.pt", "state.json", "weights.bin")
    )  # fmt: skip
    manifest = json.loads((newest / "manifest.json").read_bytes())
    state = newest / "state.json"
    rows = json.loads(state.read_bytes())["ledger"] if state.exists() else None
    losses, _ = losses_of(workspace)
    return End(
        step=int(manifest["step"]),
        digest={name: hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in names},
        losses=losses,
        rows=rows,
        cursor={name: value for name, value in manifest["data_cursor"].items()},
    )


def losses_of(workspace: Workspace) -> tuple[dict[int, float], list[str]]:
    """Return the loss of each step as the attempts' numbers tell, and where two attempts contradict each other."""
    losses: dict[int, float] = {}
    contradictions: list[str] = []
    for path in sorted((workspace.root / ".overnight" / "attempts").glob("*/metrics.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                value = json.loads(line)
                step, loss = int(value["step"]), float(value["loss"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill, or numbers of an evaluation
            if losses.setdefault(step, loss) != loss:
                contradictions.append(f"step {step} was trained again with another loss: {losses[step]}, {loss}")
    return losses, contradictions


def judge(run: Run, expected: End) -> Verdict:
    """Judge a run that has ended."""
    verdict = Verdict(complaints=list(run.offences))
    say = verdict.complaints.append
    workspace = run.workspace
    verdict.orphans = strays(workspace.root, run.sessions)
    verdict.complaints += [f"orphan: {text}" for text in verdict.orphans]
    for check in (_check_places, _check_half_done, _check_queue, _check_false_kills):
        verdict.complaints += check(run)
    verdict.late_guards = sum(1 for done in run.injected if done.what != "stop" and (done.guard_s or 0.0) > GUARD_S)
    if not run.looks:
        say("the status file was never seen")
    found = end_of(workspace)
    _, contradictions = losses_of(workspace)
    verdict.complaints += contradictions[:5]
    verdict.steps, verdict.is_equal = found.step, found.digest == expected.digest
    if not verdict.is_equal:
        other = [name for name, digest in expected.digest.items() if found.digest.get(name) != digest]
        say(f"the bytes differ from the undisturbed run's: {', '.join(other)}")
    if found.step != expected.step or found.cursor != expected.cursor:
        say(f"it ended at step {found.step} {found.cursor}, the undisturbed run at {expected.step} {expected.cursor}")
    verdict.complaints += _check_rows(run, found, expected)
    verdict.complaints += _check_proof(workspace, expected)
    return verdict


def _check_rows(run: Run, found: End, expected: End) -> Iterator[str]:
    """Each row was consumed exactly once an epoch, in the order of the undisturbed run."""
    missing = [step for step in range(1, found.step + 1) if step not in found.losses]
    if missing:
        yield f"no loss was told of {len(missing)} steps: {missing[:8]}"
    other = [step for step, loss in expected.losses.items() if found.losses.get(step, loss) != loss]
    if other:
        yield f"the loss of {len(other)} steps differs from the undisturbed run's, the first at step {min(other)}"
    if found.rows is None:
        return
    epochs = int(run.kind.settings["train.epochs"])
    often = Counter(found.rows)
    wrong = [row for row, count in often.items() if count != epochs]
    if wrong or len(often) != len(run.files) * run.kind.rows:
        yield f"rows lost or doubled: {len(often)} rows, {len(wrong)} of them not {epochs} times, such as {wrong[:3]}"
    if found.rows != expected.rows:
        yield "the rows were consumed in another order"


def _check_proof(workspace: Workspace, expected: End) -> Iterator[str]:
    """Equal bytes prove nothing where nothing was learnt."""
    first, last = expected.losses.get(1), expected.losses.get(expected.step)
    if first is None or last is None or not last < 0.8 * first:
        yield f"the undisturbed run learnt nothing: loss {first} to {last}"
    if not any(name.endswith(".safetensors") for name in expected.digest):
        return
    from safetensors.numpy import load_file

    weights = load_file(next(workspace.newest().glob("*.safetensors")))
    if not any("lora_B" in name and value.any() for name, value in weights.items()):
        yield "the adapter is as it was made: every B is zero"


def _check_places(run: Run) -> Iterator[str]:
    """Each file lies in done/, whole, and nowhere else."""
    root = run.workspace.root
    for number in run.files:
        found = [path.relative_to(root) for path in root.rglob(name_of(number)) if path.is_file()]
        if found != [Path("done") / name_of(number)]:
            yield f"{name_of(number)} lies in {[str(path) for path in found]}, not in done/ alone"
        elif (root / found[0]).read_bytes() != rows_of(number, run.kind.rows):
            yield f"{found[0]} is not what was handed in"
    for folder in ("inbox", "queue/waiting", "queue/processing", "failed", "rejected", ".overnight/claimed"):
        left = os.listdir(root / folder)
        if left:
            yield f"{folder}/ is not empty: {left[:3]}"


def _check_half_done(run: Run) -> Iterator[str]:
    workspace = run.workspace
    left = [
        str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*")
        if path.name.endswith(HALF_DONE) or path.name.startswith(".removing.")
    ]  # fmt: skip
    if left:
        yield f"left half done: {len(left)}: {left[:5]}"
    scratch = [str(path) for path in (workspace.root / ".overnight" / "attempts").glob("*/output")]
    if scratch:
        yield f"scratch of ended attempts is left: {scratch[:3]}"


def _check_queue(run: Run) -> Iterator[str]:
    """Every job succeeded, in the order in which the files came; no attempt is open; the newest checkpoint is whole."""
    answer = run.workspace.json("queue")
    jobs = answer["jobs"]
    states = Counter(job["state"] for job in jobs)
    if states != {"succeeded": len(run.files)}:
        told = [f"{job['file']}: {job['state']} ({job['reason']})" for job in jobs if job["state"] != "succeeded"]
        yield f"not every job succeeded: {dict(states)}; {told[:3]}"
    if [job["file"] for job in sorted(jobs, key=lambda job: job["id"])] != [name_of(number) for number in run.files]:
        yield "the jobs are not in the order in which the files came"
    status = run.workspace.json("status")
    for part in ("daemon", "watchdog", "trainer"):
        if status[part]:
            yield f"status says that after down there is a {part}: {status[part]}"
    verified = run.workspace.json("verify")
    if not verified["ok"]:
        yield f"verify finds problems: {verified['problems'][:3]}"
    database = run.workspace.root / ".overnight" / "state.db"
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        still = connection.execute("SELECT id, state FROM attempts WHERE state <> 'ended'").fetchall()
    finally:
        connection.close()
    if still:
        yield f"attempts are still open: {still}"


def _check_false_kills(run: Run) -> Iterator[str]:
    """Nobody is ended as stuck whom the run has not stopped."""
    kinds = [json.loads(line) for line in run.workspace.run("events", "--json", check=False).stdout.splitlines()]
    stuck = [event["message"] for event in kinds if event["kind"] == "attempt.stuck"]
    stopped = [done for done in run.injected if done.what == "stop" and "trainer" in done.victims]
    if len(stuck) > len(stopped):
        yield f"{len(stuck)} trainers were ended as stuck, {len(stopped)} were stopped: {stuck[:3]}"
