"""Killed at any arrow, the next start goes on: each file in exactly one place, each row trained once, the same end.

strace kills a process when it enters its n-th rename, fsync, fdatasync or unlink. What is killed is the loop alone, or
every process of the workspace at its own n-th call (intake, trainer and loop). Then a loop is started as always.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from simulated_rig import Rig, write_rows
from sweep_rig import needs_strace, sampled, strace, sweep

pytestmark = [pytest.mark.crash, needs_strace, pytest.mark.timeout(7200)]

FILES = {"a.jsonl": 16, "b.jsonl": 12}
LONGEST_S = 60.0
LONGEST_AFTER_A_HIT_S = 8.0
"""Where each new child dies at the same call, the loop never comes to an end."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the model that the undisturbed run ends with."""
    rig = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace")
    prepare(rig)
    rig.start_loop()
    rig.wait(lambda: is_over(rig), timeout=60)
    rig.end()
    return rig.model()


def prepare(rig: Rig) -> None:
    rig.simulate(step_s=0.01)
    rig.make(checkpoint__every_steps=2, checkpoint__keep=1)
    for name, rows in FILES.items():
        rig.drop(name, rows=rows)


def is_over(rig: Rig) -> bool:
    return len(rig.jobs()) == len(FILES) and rig.is_done() and all(job.filed for job in rig.jobs())


def run_until_killed(rig: Rig, call: str, when: int, *, everybody: bool) -> bool:
    """Run the loop until the injected kill has hit it, or everything was done; return whether it hit anybody."""
    log = rig.layout.root.parent / "strace.log"
    command = [word if word != "-qq" else "-q" for word in strace(call, when, options=["-f"] if everybody else [])]
    loop = rig.start_loop(wrapper=[str(log) if word == "/dev/null" else word for word in command])
    deadline = time.monotonic() + LONGEST_S
    is_hit = False
    while loop.poll() is None and not is_over(rig) and time.monotonic() < deadline:
        time.sleep(0.02)
        if not is_hit and log.exists() and "killed by SIGKILL" in log.read_text():
            is_hit, deadline = True, time.monotonic() + LONGEST_AFTER_A_HIT_S
    is_hit = is_hit or "killed by SIGKILL" in log.read_text()
    if loop.poll() is None:  # it did not come that far, or each new child dies at the same call
        pid = rig.daemon_pid()
        if pid is not None:
            subprocess.run(["kill", "-KILL", str(pid)], check=False)
        loop.wait(10)
    return is_hit


def check(rig: Rig, expected: dict[str, Any]) -> None:
    """Start a loop as always; everything must end as if nothing had happened."""
    again = rig.start_loop()
    rig.wait(lambda: is_over(rig), timeout=60, what="the end of all jobs")
    model = rig.model()
    assert len(model["ledger"]) == len(set(model["ledger"])), "a row was trained twice"
    assert model == expected
    # the process that judges files may still be clearing up behind a job that is already done
    rig.wait(lambda: not list(rig.layout.claimed.iterdir()), what="the end of each claim")
    rig.wait(lambda: rig.daemon_pid() == again.pid)
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0
    for name, rows in FILES.items():
        found = [path for path in rig.layout.root.rglob(name) if path.is_file()]
        assert [path.parent for path in found] == [rig.layout.done]
        assert found[0].read_bytes() == write_rows(name, rows)
    left = [path.name for path in rig.layout.model.iterdir() if not path.name.startswith("checkpoint-")]
    assert left == []
    json.loads(rig.layout.status_file.read_text())


@sampled(rename=(1, 4, 7), fsync=(2,), fdatasync=(2, 9), unlinkat=(3,))
def test_the_loop_killed_at_any_arrow(
    tmp_path: Path, undisturbed: dict[str, Any], call: str, points: tuple[int, ...]
) -> None:
    sweep("the loop", call, points, lambda point: strike(tmp_path, undisturbed, call, point, everybody=False))


@sampled(rename=(3, 9), fsync=(5,))
def test_everybody_killed_at_any_arrow(
    tmp_path: Path, undisturbed: dict[str, Any], call: str, points: tuple[int, ...]
) -> None:
    sweep(
        "intake, trainer and loop", call, points,
        lambda point: strike(tmp_path, undisturbed, call, point, everybody=True),
    )  # fmt: skip


def strike(folder: Path, undisturbed: dict[str, Any], call: str, point: int, *, everybody: bool) -> bool:
    """Kill at one point in a workspace of its own, and check the end; return whether the kill hit."""
    rig = Rig(folder / "workspace")
    try:
        prepare(rig)
        is_hit = run_until_killed(rig, call, point, everybody=everybody)
        check(rig, undisturbed)
    finally:
        rig.end()
        shutil.rmtree(rig.layout.root)
    return is_hit


def test_the_check_itself_finds_a_row_that_was_trained_twice(rig: Rig, undisturbed: dict[str, Any]) -> None:
    prepare(rig)
    doubled = {**undisturbed, "ledger": [*undisturbed["ledger"], undisturbed["ledger"][0]]}
    with pytest.raises(AssertionError):
        check(rig, doubled)


def test_a_failed_write_of_the_status_never_disturbs_the_run(rig: Rig, undisturbed: dict[str, Any]) -> None:
    prepare(rig)
    shutil.rmtree(rig.layout.status_file.parent)
    rig.layout.status_file.parent.write_text("a file in the way")
    rig.start_loop()
    rig.wait(lambda: is_over(rig), timeout=60)
    assert rig.model() == undisturbed
