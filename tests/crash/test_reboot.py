"""A reboot in the middle of a run: other boot id, other uptime, the same numbers given to other processes.

Each boot is a set of namespaces of its own; it ends as a machine does that loses its power: everything at once.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import attempts
from overnight.domain.attempt import Outcome
from overnight.status import snapshot
from simulated_rig import Rig

pytestmark = pytest.mark.crash

UPTIME_S = 1_000_000
"""How long the one machine has been up, compared to the other."""


class Boot:
    """One life of a machine."""

    def __init__(self, folder: Path, *, uptime_s: int) -> None:
        identity = folder / f"boot_id.{uuid.uuid4().hex}"
        identity.write_text(f"{uuid.uuid4()}\n")
        self.wrapper = [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--time",
            f"--boottime={uptime_s}", f"--monotonic={uptime_s}", "/bin/sh", "-c",
            f'mount --bind {identity} /proc/sys/kernel/random/boot_id && "$@"; true', "sh",
        ]  # fmt: skip

    def is_possible(self) -> bool:
        return (
            shutil.which("unshare") is not None
            and subprocess.run([*self.wrapper, "true"], capture_output=True, check=False).returncode == 0
            and subprocess.run(
                [*self.wrapper, "cat", "/proc/sys/kernel/random/boot_id"], capture_output=True, check=False
            ).stdout.strip()
            != Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the same job leaves in one boot."""
    other = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace").make(files=1)
    other.simulate(step_s=0)
    other.start_loop()
    other.wait(other.is_done)
    model = other.model()
    other.end()
    return model


@pytest.fixture
def boots(tmp_path: Path) -> Iterator[Any]:
    """Give a maker of boots."""

    def make(uptime_s: int) -> Boot:
        boot = Boot(tmp_path, uptime_s=uptime_s)
        if not boot.is_possible():
            pytest.skip("needs the right to make time, process and mount namespaces")
        return boot

    return make


def state_of(rig: Rig) -> str:
    """Return the state that status tells now."""
    connection = rig.connect()
    try:
        return snapshot(rig.layout, connection, now=time.time()).state
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("before_s", "after_s"),
    [(UPTIME_S, 0), (0, UPTIME_S)],
    ids=["stamps lie in the future afterwards", "stamps look old afterwards"],
)
def test_a_reboot_in_the_middle_of_a_run_costs_what_was_not_saved_and_nothing_else(
    rig: Rig, boots: Any, undisturbed: dict[str, Any], before_s: int, after_s: int
) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=1)
    rig.wish("up")
    machine = rig.start_loop(wrapper=boots(before_s).wrapper)
    rig.wait(lambda: rig.step() >= 7)
    machine.kill()
    machine.wait()
    rig.wait(lambda: rig.trainer_pid() is None and rig.daemon_pid() is None, what="the end of everything")

    rig.wait(lambda: state_of(rig) == "dead", what="the word of status, whatever the stamps look like")

    assert attempts.unwatched_s(rig.layout.attempt("000001-01")) is None, "a stamp of another boot tells no age"

    rig.simulate(step_s=0.02)
    rig.start_loop(wrapper=boots(after_s).wrapper)
    rig.wait(rig.is_done, timeout=30)
    first, second = rig.attempts()
    assert first.outcome in (Outcome.LOST, Outcome.CRASHED)
    assert second.first_step == 5
    assert second.outcome is Outcome.COMPLETED
    assert rig.jobs()[0].charged == 0
    assert rig.events("attempt.stuck") == []
    assert rig.model() == undisturbed


def test_a_machine_that_reboots_again_and_again_gets_there_and_the_ids_stay_in_order(
    rig: Rig, boots: Any, undisturbed: dict[str, Any]
) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=1)
    rig.wish("up")
    for step in (6, 11):
        machine = rig.start_loop(wrapper=boots(UPTIME_S).wrapper)
        rig.wait(lambda reached=step: rig.step() >= reached)
        machine.kill()
        machine.wait()
        rig.wait(lambda: rig.trainer_pid() is None)
    rig.simulate(step_s=0)
    rig.start_loop()
    rig.wait(rig.is_done)
    assert [attempt.first_step for attempt in rig.attempts()] == [0, 5, 10]
    assert rig.model() == undisturbed
    assert all(one["id"] < other["id"] for one, other in itertools.pairwise(rig.events()))
