"""Watching a training through its status file, killing it in the middle, and proving that it resumed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.demo import resume
from overnight.demo.product import Product
from overnight.demo.screen import Bar, Screen
from overnight.domain.errors import FailedError

KILL_SHARE = 0.45
"""The kill comes at this share of the steps, at the first moment when a checkpoint is older than the last step."""

LOOK_EVERY_S = 0.1
STUCK_S = 900.0
"""The demo gives up when nothing moves for so long; the product's own guards act sooner."""

TAKEN_S = 120.0
"""The dropped file must have become a job at work within this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the training left behind."""

    proof: resume.Resume
    total: int
    checkpoint: Path
    train_s: float


def train_through_a_kill(product: Product, screen: Screen) -> Training:
    """Watch the training, kill its trainer in the middle, and watch it to its end."""
    started = time.monotonic()
    with screen.progress() as bar:
        killed = _watch(product, bar, until=_is_time_to_kill(product))
        pid = _kill_trainer(product)
        screen.part(f"kill -9 {pid}: the trainer dies in the middle of its {killed['total']} steps")
        resumed = _watch(product, bar, until=lambda status: _is_successor(status, killed))
        screen.part(f"it resumes by itself: attempt {resumed['attempt']}, from checkpoint {resumed['step']}")
        _watch(product, bar, until=lambda status: status.get("state") == "idle")
    train_s = time.monotonic() - started
    [job] = product.ask("queue")["jobs"]
    if job["state"] != "succeeded":
        raise FailedError(
            "The job did not succeed",
            found=f"it is {job['state']}: {job['reason']}",
            expected="succeeded, after one kill",
            fix="overnight events and overnight logs trainer tell what happened",
        )
    proof = resume.read(product.workspace, killed=killed["attempt"], successor=resumed["attempt"])
    _check_proof(proof, screen)
    total = product.checkpoints()[-1]
    checkpoint = product.workspace / "current_model" / f"checkpoint-{total}"
    return Training(proof=proof, total=total, checkpoint=checkpoint, train_s=train_s)


def _kill_trainer(product: Product) -> int:
    """Kill the trainer that ``status`` names, as kill -9 does, and return its pid. Raises FailedError."""
    trainer = product.ask("status")["trainer"]
    try:
        pid = int(trainer["pid"])
        os.kill(pid, signal.SIGKILL)
    except (TypeError, ProcessLookupError) as error:
        raise FailedError(
            "The kill came too late",
            found="a training that had ended already",
            expected="a trainer at work in the middle of the job",
            fix="start the demo once more",
        ) from error
    return pid


def _is_time_to_kill(product: Product) -> Callable[[dict[str, Any]], bool]:
    def decide(status: dict[str, Any]) -> bool:
        step, total = status.get("step") or 0, status.get("total") or 0
        if status.get("state") != "training" or not total or step < KILL_SHARE * total:
            return False
        steps = product.checkpoints()
        return bool(steps) and steps[-1] < step  # so that something is lost and trained again

    return decide


def _is_successor(status: dict[str, Any], killed: dict[str, Any]) -> bool:
    return status.get("attempt") not in (None, killed["attempt"]) and status.get("pid") is not None


def _watch(product: Product, bar: Bar, *, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read the status file until something holds, and return that reading. Raises FailedError where it never comes."""
    last: tuple[Any, ...] = ()
    moved_at = time.monotonic()
    has_worked = False
    while True:
        status = product.training_status()
        bar.show(status)
        if until(status):
            return status
        now = time.monotonic()
        mark = (status.get("attempt"), status.get("state"), status.get("step"))
        if mark != last:
            last, moved_at = mark, now
        state = status.get("state")
        has_worked = has_worked or state == "training"
        limit_s = STUCK_S if has_worked or state == "loading" else TAKEN_S
        is_refused = any((product.workspace / "rejected").iterdir())
        is_over = state == "dead" or (state == "idle" and has_worked)
        if is_refused or is_over or now - moved_at > limit_s:
            raise FailedError(
                "The training did not go as the demo expects",
                found=f"state {state} at step {status.get('step')} of {status.get('total')}"
                + (", and the file was rejected" if is_refused else ""),
                expected="one kill in the middle, one resume, and a job that succeeds",
                fix=f"overnight -C {product.workspace} events   tells what happened",
            )
        time.sleep(LOOK_EVERY_S)


def _check_proof(proof: resume.Resume, screen: Screen) -> None:
    """Say what the kill cost. Raises FailedError where the steps trained twice differ."""
    again = proof.trained_twice
    if proof.different:
        raise FailedError(
            "The resumed training is not the one that was killed",
            found=f"other losses at steps {proof.different}",
            expected="the same losses to the last digit",
            fix="overnight verify; please report it with the workspace's crashes/ folder",
        )
    lost = f"steps {again[0]} to {again[-1]}" if len(again) > 1 else f"step {again[0]}" if again else "no step"
    screen.say(
        f"resumed from step {proof.resumed_from} after the kill at step {proof.killed_at}; {lost} trained again, with "
        "the same loss to the last digit",
        style="green",
    )
