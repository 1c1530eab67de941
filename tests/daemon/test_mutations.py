"""State files edited by hand, at random, at rest and under a working loop: repaired from what is true, or refused.

Never a traceback, never a loop that waits for a pipe, never a row trained twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.domain.job import JobState
from simulated_rig import Rig

EVERY = "OVERNIGHT_EVERY_DAMAGE" in os.environ
"""Set it for all one hundred; they take some two minutes."""

SEEDS = range(70) if EVERY else range(0, 70, 12)
LIVE_SEEDS = range(30) if EVERY else range(0, 30, 10)
LONG = 60

AT_REST = [
    ".overnight/daemon.json", ".overnight/pace.json", ".overnight/verified.json", ".overnight/trash.json",
    ".overnight/run.json", ".overnight/fingerprints.json", ".overnight/trainer_log.json", ".overnight/daemon.lock",
    ".overnight/model.lock", ".overnight/checkpoints.lock", ".overnight/watchdog.lock", ".config_lock.json",
    "status/training_status.json", "logs/trainer.log", ".overnight/attempts/000002-01/spec.json",
    ".overnight/attempts/000002-01/report.json", ".overnight/attempts/000002-01/heartbeat.json",
    ".overnight/attempts/000002-01/ground.json", ".overnight/attempts/000002-01/metrics.jsonl",
    ".overnight/attempts/000002-01/trainer.log", "current_model/checkpoint-6/manifest.json",
]  # fmt: skip
LIVE = [
    *AT_REST[:7], ".config_lock.json", "status/training_status.json", "heartbeat.json", "watched", "report.json",
    "ground.json", "metrics.jsonl", "spec.json",
]  # fmt: skip
STRANGE = [b"", b"null", b"[]", b"7", b'"x"', b"{}", b'{"schema": 1}', b'{"schema": 99}', b"\0" * 50, b"[" * 9000]
VALUES = [None, -1, "x", [], {}, True, 1e308, "\x1b[2J\n", 10**30, "../../elsewhere"]


def put(path: Path, kind: str) -> None:
    """Take a file away, perhaps for something else; its owner may just be writing it anew."""
    for _ in range(1000):
        path.unlink(missing_ok=True)
        try:
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                path.mkdir()
            elif kind == "no link":
                path.symlink_to(path.with_name("nowhere"))
        except FileExistsError:
            continue
        break
    if kind == "folder":
        with contextlib.suppress(OSError):  # it has made way already
            (path / "mine").write_text("somebody's")


def mutate(path: Path, source: random.Random) -> str:
    """Do one thing to a file; return what."""
    data = path.read_bytes() if path.is_file() else b'{"schema": 1}'
    path.parent.mkdir(parents=True, exist_ok=True)
    at = source.randrange(len(data) + 1)
    kind = source.choice(["cut", "byte", "left out", "strange", "value", "value", "gone", "pipe", "folder", "no link"])
    if kind in ("gone", "pipe", "folder", "no link"):
        put(path, kind)
    elif kind == "value":
        try:
            value = json.loads(data)
            value[source.choice(list(value))] = source.choice(VALUES)
            data = json.dumps(value).encode()
        except (ValueError, TypeError, IndexError):
            data = data[:at]
    else:
        changed = {
            "cut": data[:at],
            "byte": data[:at] + bytes([source.randrange(256)]) + data[at + 1 :],
            "left out": data[:at] + data[at + source.randrange(1, 20) :],
            "strange": source.choice(STRANGE),
        }
        data = changed[kind]
    if kind not in ("gone", "pipe", "folder", "no link"):
        path.write_bytes(data)
    return f"{path.name}: {kind}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Make a workspace with one job done, one interrupted at step 6 and one that waits."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(tmp_path_factory.mktemp("world") / "workspace", patch).make(checkpoint__every_steps=2)
        context = rig.context()
        rig.submit("first.jsonl", rows=8)
        rig.simulate(step_s=0)
        rig.tick_until(context, rig.is_done, timeout=LONG)
        rig.simulate(fault="hang@5:1")
        rig.submit("second.jsonl", rows=40)
        rig.tick_until(context, lambda: rig.layout.checkpoint(6).is_dir() and rig.step() >= 7, timeout=LONG)
        rig.wish("paused")
        rig.set(checkpoint__every_steps=2, watch__grace_s=0.5)
        rig.tick_until(context, lambda: context.standing.state == "paused", timeout=LONG)
        rig.submit("third.jsonl", rows=8)
        rig.settle()
        yield rig


@pytest.fixture
def rig(world: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "workspace", monkeypatch)
    shutil.copytree(world.layout.root, made.layout.root)
    made.withdraw("paused")
    made.simulate(step_s=0)
    yield made
    made.end()


@pytest.fixture(scope="module")
def expected(world: Rig) -> dict[str, Any]:
    """Return the model with which the run ends where nothing is edited."""
    with pytest.MonkeyPatch.context() as patch:
        rig = Rig(world.layout.root.with_name("expected"), patch)
        shutil.copytree(world.layout.root, rig.layout.root)
        rig.withdraw("paused")
        rig.simulate(step_s=0)
        rig.tick_until(rig.context(), rig.is_done, timeout=LONG)
        rig.end()
        return rig.model()


def check(rig: Rig, expected: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture) -> None:
    """Go on ticking; all must be trained as if nothing had happened, or nothing more with the reason in words."""
    context = rig.context()
    begun = len(rig.attempts())

    def is_over() -> bool:
        return rig.is_done() or context.standing.state == "waiting"

    rig.tick_until(context, is_over, timeout=LONG)
    if context.standing.state == "waiting" and not rig.is_done():  # perhaps only a pause between two tries
        waits = [job for job in rig.jobs() if job.not_before > 0 and job.state is JobState.QUEUED]
        if waits:
            rig.tick_until(context, rig.is_done, timeout=LONG)
    failed = [event["message"] for event in rig.events("daemon.step_failed")]
    assert failed == [], words
    assert "Traceback" not in caplog.text, words
    if rig.is_done():
        assert rig.model() == expected, words
    else:
        assert len(context.standing.reason) > 20, words
        assert len(rig.attempts()) == begun, words


@pytest.mark.timeout(150)
@pytest.mark.parametrize("seed", SEEDS)
def test_state_edited_at_rest_is_repaired_or_refused_in_words(
    rig: Rig, expected: dict[str, Any], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    source = random.Random(seed)
    words = "; ".join(mutate(rig.layout.root / name, source) for name in source.sample(AT_REST, 2))
    check(rig, expected, words, caplog)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("seed", LIVE_SEEDS)
def test_state_edited_under_a_working_loop_harms_no_run(
    rig: Rig, expected: dict[str, Any], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    source = random.Random(1000 + seed)
    rig.simulate(step_s=0.05)
    context = rig.context()
    rig.tick_until(context, lambda: rig.trainer_pid() and rig.step() >= 8, timeout=LONG)
    words = []
    for name in source.sample(LIVE, 2):
        path = rig.layout.root / name if ("." in name and "/" in name) or name[0] == "." else None
        words.append(mutate(path or rig.layout.attempt("000002-02") / name, source))
    rig.tick_until(context, lambda: rig.is_done() or context.standing.state == "waiting", timeout=LONG)
    check(rig, expected, "; ".join(words), caplog)
