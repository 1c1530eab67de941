"""Hangs and stops of a real trainer at default limits: it goes on by itself, to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {
    "train.epochs": "24",
    "checkpoint.every_steps": "48",
    "evaluation.holdout": "0.2",
    "evaluation.every_steps": "48",
}
"""288 steps of some milliseconds, six evaluations of four batches each."""

STUCK_AT = 240
"""The stop has to come well before it, however fast the steps are and however busy the machine."""


def sums(path: Path) -> Path:
    source = random.Random(3)
    pairs = [(source.randint(0, 99), source.randint(0, 99)) for _ in range(64)]
    rows = [{"prompt": f"{a}+{b}?", "completion": str(a + b)} for a, b in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def heartbeat_of_a_step(workspace: Any) -> dict[str, Any]:
    """What the first trainer says as soon as it has made a step; ``status`` would take its time."""
    path, deadline = workspace.root / ".overnight" / "attempts" / "000001-01" / "heartbeat.json", time.monotonic() + 100
    while time.monotonic() < deadline:
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            if found["step"] >= 1:
                return found
        time.sleep(0.005)
    raise AssertionError("no step in 100 s")


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.crash
def test_a_stopped_trainer_and_an_evaluation_stuck_in_native_code_cost_no_byte(
    make_workspace: Callable[[str], Any],
) -> None:
    plain, hung = make_workspace("plain"), make_workspace("hung")
    for one in (plain, hung):
        limits = {"watch.eval_stuck_s": "3", "watch.grace_s": "1"} if one is hung else {}
        one.init(**SETTINGS, **limits)
        one.run("add", str(sums(one.root.parent / "sums.jsonl")))
    hung.environment["OVERNIGHT_FAULT"] = "eval:18:native:once"  # in the fifth evaluation
    hung.up()
    os.kill(heartbeat_of_a_step(hung)["pid"], signal.SIGSTOP)
    stopped_at, seen = time.monotonic(), hung.json("status")["step"]
    assert seen < STUCK_AT
    hung.wait(lambda now: now["step"] > seen, timeout=100)
    assert time.monotonic() - stopped_at < 60
    hung.wait(lambda now: now["queue"]["succeeded"] == 1, timeout=100)
    told = (hung.root / "logs" / "anti_stuck.log").read_text()
    assert "it is continued" in told
    assert "no progress while evaluating" in told
    folder = hung.root / ".overnight" / "attempts" / "000001-01"
    assert json.loads((folder / "hang.json").read_text())["phase"] == "evaluating"
    assert "_never_return" in (folder / "stacks.txt").read_text()
    report = json.loads((folder.with_name("000001-02") / "report.json").read_text())
    assert any(f"evaluation at step {STUCK_AT} skipped" in note for note in report["notes"])
    assert hung.run("logs", "anti-stuck").stdout.count("KILL") == 1
    plain.until_idle()
    assert hung.digest() == plain.digest()
