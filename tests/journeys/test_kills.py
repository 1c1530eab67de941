"""Whatever is killed, the final bytes are those of the undisturbed run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.mark.crash
@pytest.mark.parametrize("step", [30, 250])
def test_a_killed_trainer_ends_with_the_same_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None], step: int
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    pid = workspace.wait_for_step(step)["trainer"]["pid"]
    os.kill(pid, signal.SIGKILL)
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    workspace.check_end(undisturbed[1])
    events = [event["kind"] for event in map(json.loads, workspace.run("events", "--json").stdout.splitlines())]
    assert "attempt.ended" in events


@pytest.mark.crash
def test_everything_killed_at_once_goes_on_with_up(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    status = workspace.wait_for_step(220)
    for part in ("watchdog", "daemon", "trainer"):
        if status[part]:
            os.kill(status[part]["pid"], signal.SIGKILL)
    dead = workspace.wait(lambda status: status["state"] == "dead", timeout=30)
    assert dead["step"] >= 200
    assert workspace.run("status", check=False).returncode == 69
    workspace.until_idle()
    workspace.check_end(undisturbed[1])


@pytest.mark.crash
def test_a_killed_loop_costs_no_step(workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]) -> None:
    workspace.init_long()
    three_files(workspace)
    workspace.up()
    before = workspace.wait_for_step(20)
    os.kill(before["daemon"]["pid"], signal.SIGKILL)
    workspace.wait(lambda status: status["daemon"] and status["daemon"]["pid"] != before["daemon"]["pid"])
    workspace.wait(lambda status: status["queue"]["succeeded"] == 3, timeout=240)
    workspace.check_end(undisturbed[1])
