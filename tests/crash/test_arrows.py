"""Killed at any arrow, the next start goes on: each file in exactly one place, each row trained once, the same end.

strace kills a process when it enters its n-th rename, fsync or unlink. What is killed is the loop alone, or every
process of the workspace at its own n-th call (intake, trainer and loop). Then a loop is started as always.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from typing import Any

import pytest

from simulated_rig import Rig, write_rows

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to kill at a system call"),
]

FILES = {"a.jsonl": 16, "b.jsonl": 12}
RENAME, SYNC, UNLINK = "rename,renameat,renameat2", "fsync,fdatasync", "unlink,unlinkat,rmdir"
EVERY_ARROW = "OVERNIGHT_EVERY_ARROW" in os.environ
"""Set it for every single arrow; it takes some ten minutes."""

LONGEST_S = 8.0
CALLS = {"rename": RENAME, "sync": SYNC, "unlink": UNLINK}

LOOP_QUICK = [("rename", n) for n in (1, 4, 7, 12)] + [("sync", n) for n in (2, 9, 15, 24)] + [("unlink", 2)]
LOOP_SLOW = [
    (call, n)
    for call, most in (("rename", 40), ("sync", 50), ("unlink", 22))
    for n in range(1, most, 1 if EVERY_ARROW else 4)
    if (call, n) not in LOOP_QUICK
]
ALL_QUICK = [("rename", n) for n in (3, 9)] + [("sync", n) for n in (5, 10)]
ALL_SLOW = [
    (call, n)
    for call, most in (("rename", 18), ("sync", 24), ("unlink", 6))
    for n in range(1, most, 1 if EVERY_ARROW else 3)
    if (call, n) not in ALL_QUICK
]


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


def strace(call: str, when: int, *, everybody: bool) -> list[str]:
    return [
        "strace", *(["-f"] if everybody else []), "-o", "/dev/null", "-e", f"trace={CALLS[call]}",
        "-e", f"inject={CALLS[call]}:signal=KILL:when={when}",
    ]  # fmt: skip


def run_until_killed(rig: Rig, call: str, when: int, *, everybody: bool) -> None:
    """Run the loop until the injected kill has hit it, or everything was done without meeting it."""
    loop = rig.start_loop(wrapper=strace(call, when, everybody=everybody))
    deadline = time.monotonic() + LONGEST_S
    while loop.poll() is None and not is_over(rig) and time.monotonic() < deadline:
        time.sleep(0.02)
    if loop.poll() is None:  # it did not come that far, or each new child dies at the same call
        pid = rig.daemon_pid()
        if pid is not None:
            subprocess.run(["kill", "-KILL", str(pid)], check=False)
        loop.wait(10)


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
    assert again.wait(20) == 0
    for name, rows in FILES.items():
        found = [path for path in rig.layout.root.rglob(name) if path.is_file()]
        assert [path.parent for path in found] == [rig.layout.done]
        assert found[0].read_bytes() == write_rows(name, rows)
    left = [path.name for path in rig.layout.model.iterdir() if not path.name.startswith("checkpoint-")]
    assert left == []
    json.loads(rig.layout.status_file.read_text())


@pytest.mark.parametrize(("call", "when"), LOOP_QUICK)
def test_the_loop_killed_at_an_arrow(rig: Rig, undisturbed: dict[str, Any], call: str, when: int) -> None:
    prepare(rig)
    run_until_killed(rig, call, when, everybody=False)
    check(rig, undisturbed)


@pytest.mark.parametrize(("call", "when"), ALL_QUICK)
def test_everybody_killed_at_his_own_arrow(rig: Rig, undisturbed: dict[str, Any], call: str, when: int) -> None:
    prepare(rig)
    run_until_killed(rig, call, when, everybody=True)
    check(rig, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "when"), LOOP_SLOW)
def test_the_loop_killed_at_any_arrow(rig: Rig, undisturbed: dict[str, Any], call: str, when: int) -> None:
    prepare(rig)
    run_until_killed(rig, call, when, everybody=False)
    check(rig, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("call", "when"), ALL_SLOW)
def test_everybody_killed_at_any_arrow(rig: Rig, undisturbed: dict[str, Any], call: str, when: int) -> None:
    prepare(rig)
    run_until_killed(rig, call, when, everybody=True)
    check(rig, undisturbed)


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
