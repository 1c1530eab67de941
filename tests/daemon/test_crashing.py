"""Evidence of what ended badly: kept for every crash, hang and loss, and never in the way of the run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from overnight.daemon import crashing
from overnight.disk import crashes
from overnight.domain.attempt import Outcome
from overnight.status import crashes as told
from simulated_rig import Rig


def listing(rig: Rig) -> list[dict[str, Any]]:
    connection = rig.connect()
    try:
        return told.listing(rig.layout, connection, now=1e12)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fault", "kind", "name", "code", "action"),
    [
        ("kill", "killed_by_signal", "SIGKILL", None, "retry_at_once"),
        ("segv", "segfault", "SIGSEGV", None, "retry_later"),
        ("exit0", "code_error", None, 0, "retry_later"),
        ("dependency", "dependency", None, 1, "wait_for_environment"),
    ],
)
def test_each_crash_leaves_a_verdict_with_cause_remedy_and_action(
    rig: Rig, fault: str, kind: str, name: str | None, code: int | None, action: str
) -> None:
    rig.simulate(fault=f"{fault}@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    assert os.listdir(rig.layout.crashes) == ["000001-01"]
    verdict = json.loads((rig.layout.crashes / "000001-01" / "verdict.json").read_text())
    assert (verdict["schema"], verdict["id"], verdict["attempt"], verdict["job"]) == (1, "000001-01", "000001-01", 1)
    assert (verdict["kind"], verdict["signal"], verdict["exit_code"]) == (kind, name, code)
    assert (verdict["step"], verdict["action"]) == (8, action)
    assert verdict["remedy"].endswith(".")
    assert "tried again" in verdict["consequence"]
    assert any("wait status" in line for line in verdict["evidence"])
    assert "heartbeat.json" in crashes.contents(rig.layout.crashes, "000001-01")
    assert rig.events("crash")[0]["data"]["failure"] == kind
    (listed,) = listing(rig)
    assert {key: listed[key] for key in ("kind", "step", "action")} == {"kind": kind, "step": 8, "action": action}


def test_a_hang_keeps_what_the_monitor_saw_of_it(rig: Rig) -> None:
    rig.simulate(fault="hang@8:1")
    rig.make(files=1, watch__no_progress_s=1.0, watch__grace_s=0.5)
    rig.tick_until(rig.context(), rig.is_done, timeout=60)
    (one,) = listing(rig)
    assert (one["kind"], one["outcome"], one["step"], one["action"]) == ("hang", "hung", 8, "retry_later")
    assert {"hang.json", "process.json", "stacks.txt", "verdict.json"} <= set(one["files"])
    assert "no progress" in one["summary"]


def test_a_file_that_is_set_aside_is_told_so(rig: Rig) -> None:
    rig.simulate(fault="nan@3")
    rig.make(files=1, queue__max_attempts=2)
    rig.tick_until(rig.context(), lambda: rig.jobs()[0].filed)
    assert [one["action"] for one in listing(rig)] == ["set_aside", "last_checkpoint"]
    assert "given up after 2 tries" in listing(rig)[0]["consequence"]


@pytest.mark.crash
def test_a_disk_that_takes_no_evidence_is_told_and_does_not_stop_the_settling(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.simulate(fault="segv@8:1")
    rig.make(files=1)
    shutil.rmtree(rig.layout.crashes)
    rig.layout.crashes.write_text("in the way")
    rig.tick_until(rig.context(), rig.is_done)
    assert "cannot be kept" in rig.events("crash.unkept")[0]["message"]
    assert listing(rig)[0]["kind"] == "segfault"


def test_a_loop_that_dies_before_the_evidence_is_kept_keeps_it_at_the_next_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.simulate(fault="segv@8:1")
    rig.make(files=1)
    context = rig.context()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(crashing, "keep_evidence", die)
        with pytest.raises(KeyboardInterrupt):
            rig.tick_until(context, rig.is_done)
    assert os.listdir(rig.layout.crashes) == []
    rig.tick_until(rig.context(), rig.is_done)
    assert os.listdir(rig.layout.crashes) == ["000001-01"]
    assert len(rig.events("crash")) == 1


@pytest.mark.crash
def test_a_silent_death_is_told_with_its_time_while_the_daemon_is_down_and_kept_when_it_is_back(rig: Rig) -> None:
    rig.simulate(fault="hang@6:1")
    rig.make(files=1)
    daemon = rig.start_loop()
    rig.wait(lambda: rig.step() == 6, what="step 6")
    pid = rig.trainer_pid()
    assert pid is not None
    assert listing(rig) == [], "it is alive"
    daemon.kill()
    daemon.wait()
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: listing(rig), what="the silent death")
    (one,) = listing(rig)
    beat = json.loads((rig.layout.attempt("000001-01") / "heartbeat.json").read_text())
    assert (one["id"], one["outcome"], one["step"]) == ("000001-01", "lost", 6)
    assert abs(one["at_unix"] - beat["written_at"]) < 2
    assert os.listdir(rig.layout.crashes) == [], "looking writes nothing"
    rig.start_loop()
    rig.wait(rig.is_done, what="the end")
    (kept,) = listing(rig)
    assert (kept["id"], kept["outcome"]) == ("000001-01", "lost")
    assert abs(kept["at_unix"] - beat["written_at"]) < 2
    assert rig.attempts()[0].outcome is Outcome.LOST


def test_damaged_evidence_leaves_what_the_database_knows(rig: Rig) -> None:
    rig.simulate(fault="segv@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    whole = listing(rig)[0]
    path = rig.layout.crashes / "000001-01" / "verdict.json"
    for damage in ("", "[]", '{"schema": 1}', "\udcff{"):
        path.write_bytes(damage.encode("utf-8", "surrogateescape"))
        (one,) = listing(rig)
        assert one["id"] == "000001-01"
        if damage != '{"schema": 1}':
            assert {key: one[key] for key in ("kind", "step", "signal")} == {
                key: whole[key] for key in ("kind", "step", "signal")
            }
    shutil.rmtree(rig.layout.crashes)
    (one,) = listing(rig)
    assert (one["kind"], one["evidence_in"]) == ("segfault", None)


def test_old_evidence_goes_when_there_is_too_much_of_it(rig: Rig) -> None:
    rig.simulate(fault="kill@8:1")
    rig.make()
    for number in range(130):
        verdict = {"schema": 1, "at_unix": float(number), "job": number, "kind": "segfault", "step": 1}
        crashes.keep(rig.layout.crashes, rig.layout.attempts, f"{number + 900:06d}-01", verdict)
    rig.submit("a.jsonl")
    context = rig.context()
    rig.tick_until(context, rig.is_done)
    rig.tick_until(context, lambda: len(os.listdir(rig.layout.crashes)) == 100)
    assert "000001-01" in os.listdir(rig.layout.crashes)
    assert "000900-01" not in os.listdir(rig.layout.crashes)


def test_crashes_are_listed_by_the_command_without_torch_and_with_the_daemon_down(rig: Rig) -> None:
    rig.simulate(fault="segv@8:1")
    rig.make(files=1)
    rig.tick_until(rig.context(), rig.is_done)
    script = (
        "import sys; from overnight import cli; code = cli.run(sys.argv[1:]);"
        " assert 'torch' not in sys.modules; sys.exit(code)"
    )

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, "-C", str(rig.layout.root), "crashes", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    answer = json.loads(say("--json").stdout)
    assert answer["schema"] == 1
    wanted = {"id", "at", "job", "attempt", "step", "kind", "signal", "exit_code", "summary", "remedy", "action"}
    assert wanted <= answer["crashes"][0].keys()
    assert "segfault" in say().stdout
    page = say("show", "000001-01")
    assert page.returncode == 0
    assert "SIGSEGV" in page.stdout
    assert "what helps" in page.stdout
    shown = json.loads(say("show", "000001-01", "--json").stdout)
    assert (shown["kind"], shown["evidence_in"]) == ("segfault", str(rig.layout.crashes / "000001-01"))
    unknown = say("show", "../../etc")
    assert unknown.returncode == 2
    assert "no crash" in unknown.stderr
