"""Many commands at once while a job trains and saves: the last intent wins, answers are whole, the bytes the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.database import intents
from overnight.disk import checkpoints
from overnight.domain.checkpoint import Verdict, step_of
from overnight.domain.job import JobState
from simulated_rig import Rig

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

PROCESSES = 4
COMMANDS = 50 if "OVERNIGHT_EVERY_COMMAND" in os.environ else 20
"""So many each; set the variable for two hundred in all."""

DRIVER = """
import contextlib, io, json, sys
from overnight import cli
root, commands = sys.argv[1], json.loads(sys.argv[2])
cli._command()
print("ready", flush=True)
sys.stdin.readline()
said = []
for words in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(["-C", root, *words])
    said.append([words, code, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""
"""Runs one command line after another as the process does, without paying for a new interpreter each time."""


def drive(rig: Rig, *batches: list[list[str]]) -> list[subprocess.Popen[str]]:
    """Start a process for each batch of commands; let them go when all have loaded what they need."""
    drivers = [_driver(rig, batch) for batch in batches]
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
    return drivers


def go(drivers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    return drivers


def _driver(rig: Rig, commands: list[list[str]]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(rig.layout.root), json.dumps(commands)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


def say(rig: Rig, *commands: list[str]) -> list[int]:
    """Run commands one after another; return their exit codes."""
    (driver,) = go(drive(rig, list(commands)))
    return [code for _, code, _, _ in answers(driver)]


def answers(driver: subprocess.Popen[str]) -> list[tuple[list[str], int, str, str]]:
    out, err = driver.communicate(timeout=110)
    assert driver.returncode == 0, err
    return [tuple(said) for said in json.loads(out)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Give what the same two jobs leave when nobody says a word."""
    other = Rig(tmp_path_factory.mktemp("undisturbed") / "workspace").make(files=2)
    other.simulate(step_s=0)
    other.start_loop()
    other.wait(other.is_done, timeout=90)
    yield other.model()
    other.end()


def test_a_storm_of_commands_leaves_the_last_intent_valid_answers_and_the_same_bytes(
    rig: Rig, undisturbed: dict[str, Any]
) -> None:
    rig.simulate(step_s=0.1)
    rig.make(files=2)
    turns = (["pause", "--no-wait"], ["status", "--json"], ["resume"], ["stop"], ["queue", "--json"], ["resume"])
    batches = [[list(turns[(start + turn) % len(turns)]) for turn in range(COMMANDS)] for start in range(PROCESSES)]
    drivers = drive(rig, *batches)
    loop = rig.start_loop()
    rig.wait(lambda: rig.step() >= 1, timeout=90)
    go(drivers)
    reads = 0
    while any(driver.poll() is None for driver in drivers):
        if rig.layout.status_file.exists():
            told = json.loads(rig.layout.status_file.read_text())
            assert {"state", "step", "total", "schema"} <= set(told)
            reads += 1
    said = [answer for driver in drivers for answer in answers(driver)]
    assert reads > 10
    assert len(said) == PROCESSES * COMMANDS
    for words, code, out, err in said:
        assert code == 0, (words, out, err)
        if "--json" in words:
            assert json.loads(out)["schema"] == 1
    states = {json.loads(out)["state"] for words, _, out, _ in said if words[0] == "status"}
    assert "dead" not in states
    # the last one wins
    both = {"paused", "stopped"}
    assert say(rig, ["resume"]) == [0]
    for words, standing in ((["stop"], {"stopped"}), (["pause", "--no-wait"], both), (["resume"], set())):
        assert say(rig, words) == [0]
        connection = rig.connect()
        assert set(intents.standing(connection)) & both == standing
        connection.close()
    rig.wait(rig.is_done, timeout=100)
    assert rig.model() == undisturbed
    assert loop.poll() is None
    assert rig.events("daemon.step_failed") == []


def test_adds_and_skips_at_once_lose_and_double_no_file_and_an_idle_skip_hits_nobody(rig: Rig, tmp_path: Path) -> None:
    rig.simulate(step_s=0)
    rig.make()
    rig.start_loop()
    rig.wait(rig.daemon_pid, timeout=90)
    batches: list[list[list[str]]] = [[] for _ in range(PROCESSES)]
    for number in range(6):
        path = tmp_path / f"file{number}.jsonl"
        path.write_text("".join(f'{{"text": "file {number} row {row}"}}\n' for row in range(4)))
        batches[number % PROCESSES] += [["pause", "--no-wait"], ["add", str(path)], ["resume"], ["status", "--json"]]
    assert say(rig, ["skip", "--no-wait"], ["skip", "--no-wait"]) == [0, 0]
    for driver in go(drive(rig, *([*batch, ["resume"]] for batch in batches))):
        assert {code for _, code, _, _ in answers(driver)} == {0}
    assert say(rig, ["resume"]) == [0]
    rig.wait(lambda: len(rig.jobs()) == 6 and rig.is_done(), timeout=100)
    assert sorted(job.file for job in rig.jobs()) == sorted(f"file{number}.jsonl" for number in range(6))
    assert {job.state for job in rig.jobs()} == {JobState.SUCCEEDED}
    ledger = rig.model()["ledger"]
    assert len(ledger) == len(set(ledger)) == 24


def test_cleanup_verify_doctor_and_copies_in_a_loop_during_saves_change_no_byte(
    rig: Rig, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    rig.simulate(step_s=0.3)
    rig.make(files=2, checkpoint__every_steps=1, checkpoint__keep=2)
    rounds = [
        ["verify", "--json"],
        ["cleanup", "--keep", "1", "--yes", "--json"],
        ["checkpoints", "--json"],
        ["doctor"],
    ]
    drivers = drive(rig, rounds * 4, rounds * 4)
    rig.start_loop()
    rig.wait(lambda: rig.step() >= 2, timeout=90)
    go(drivers)
    copies = 0
    while any(driver.poll() is None for driver in drivers):
        copy = tmp_path / f"copy{copies}"
        subprocess.run(["cp", "-a", str(rig.layout.model), str(copy)], capture_output=True, check=False)
        copies += 1
    said = [answer for driver in drivers for answer in answers(driver)]
    aborted = [err for words, code, _, err in said if words[0] == "cleanup" and code == 75]
    assert aborted
    other = [err for err in aborted if "ABORT: training is active" not in err and "being removed" not in err]
    assert other == []
    assert {code for words, code, _, _ in said if words[0] == "cleanup"} <= {0, 75}
    assert {code for words, code, _, _ in said if words[0] == "checkpoints"} == {0}
    assert {code for words, code, _, _ in said if words[0] == "verify"} == {0}, "no false alarm"
    named = [path for path in tmp_path.glob("copy*/*") if step_of(path.name) is not None]
    assert named
    for path in named[:: max(1, len(named) // 20)]:
        report = checkpoints.verify(path)
        assert report.verdict is Verdict.VERIFIED, report.reason
    rig.wait(rig.is_done, timeout=100)
    assert rig.model() == undisturbed
