"""The health check on prepared workspaces: each state has its verdict, and nothing it does can hurt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoint_rig import commit_steps, corrupt
from overnight.disk import backups, files
from overnight.disk.layout import Layout
from simulated_rig import Rig

Run = Callable[..., Any]


def checks(said: Any) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in said.json["checks"]}


def statuses(said: Any) -> dict[str, str]:
    return {name: check["status"] for name, check in checks(said).items()}


def bad(said: Any) -> set[str]:
    return {name for name, status in statuses(said).items() if status == "fail"}


def test_a_new_workspace_is_healthy_and_every_check_is_there(inside: Run) -> None:
    said = inside("doctor", "--json")
    assert said.code == 0
    assert said.json["ok"] is True
    assert set(statuses(said)) == {
        "workspace", "permissions", "config", "lock", "web port", "base model", "checkpoints", "backups", "database",
        "daemon", "watchdog", "heartbeat", "orphans", "queue", "last crash", "disk", "inodes", "memory", "device",
        "libraries", "clock",
    }  # fmt: skip
    assert bad(said) == set()
    assert "pass" in inside("doctor").out


def test_copies_are_counted_and_one_damaged_later_is_found_and_counts_as_none(
    inside: Run, layout: Layout, tmp_path: Path
) -> None:
    place = tmp_path / "second"
    set_value(layout, backup={"path": str(place)})
    assert "is not there" in checks(inside("doctor", "--json"))["backups"]["message"]
    place.mkdir()
    commit_steps(layout, 5)
    backups.open_place(layout, place, known=None, model_name="m", now=1.0)
    assert statuses(inside("doctor", "--json"))["backups"] == "warn"
    copy = backups.store(layout, place, "checkpoint-5")
    assert checks(inside("doctor", "--json"))["backups"]["message"].startswith("1 verified")
    corrupt(Path(copy.path))
    said = inside("doctor", "--json")
    assert said.code == 1
    assert "counts as none" in checks(said)["backups"]["message"]


def break_config(layout: Layout) -> None:
    layout.config.write_text('{"model_name": ')


def set_value(layout: Layout, **values: Any) -> None:
    layout.config.write_text(json.dumps({**json.loads(layout.config.read_text()), **values}))


def damage_newest(layout: Layout) -> None:
    commit_steps(layout, 5, 10)
    corrupt(layout.checkpoint(10))


def damage_all(layout: Layout) -> None:
    damage_newest(layout)
    corrupt(layout.checkpoint(5))


def drift(layout: Layout) -> None:
    staging = layout.root / "staging"
    commit_steps(layout, 5)
    assert not staging.exists()
    folder = layout.checkpoint(5)
    from dataclasses import replace

    from overnight.disk import checkpoints

    manifest = replace(checkpoints.read_manifest(folder), locked={"seed": 7})
    shutil.rmtree(folder)
    staging.mkdir()
    (staging / "weights").write_bytes(b"w")
    checkpoints.commit(staging, folder, manifest)


def lose_base(layout: Layout) -> None:
    set_value(layout, base_model="/nowhere/at/all")


def change_base(layout: Layout) -> None:
    from overnight.disk import fingerprints

    tiny = layout.base / "tiny"
    staging = layout.root / "staging"
    staging.mkdir()
    (staging / "weights").write_bytes(b"w")
    from dataclasses import replace

    from overnight.disk import checkpoints

    commit_steps_manifest = {
        "base_model": fingerprints.of_folder(tiny), "tokenizer": fingerprints.of_tokenizer(tiny)
    }  # fmt: skip
    shutil.rmtree(staging)
    commit_steps(layout, 4)
    manifest = replace(
        checkpoints.read_manifest(layout.checkpoint(4)), step=5, job_step=5, fingerprints=commit_steps_manifest
    )
    staging.mkdir()
    (staging / "weights").write_bytes(b"w")
    checkpoints.commit(staging, layout.checkpoint(5), manifest)
    config = tiny / "config.json"
    config.write_text(config.read_text() + " ")


def damage_database(layout: Layout) -> None:
    data = bytearray(layout.database.read_bytes())
    data[4096:8192] = b"x" * 4096
    layout.database.write_bytes(bytes(data))
    for name in ("state.db-wal", "state.db-shm"):
        (layout.state / name).unlink(missing_ok=True)


def lose_database(layout: Layout) -> None:
    for path in layout.state.glob("state.db*"):
        path.unlink()


def lose_rows(layout: Layout) -> None:
    from overnight.database import queue
    from overnight.database.connection import connect
    from overnight.domain.job import Priority

    connection = connect(layout.database)
    queue.submit(
        connection, claim="c", file="a.jsonl", sha256="s", dataset="d" * 64, priority=Priority.NORMAL, examples=1,
        accounting={}, rejection=None, now=1.0,
    )  # fmt: skip
    connection.close()


def wish_up(layout: Layout) -> None:
    from overnight.database import intents
    from overnight.database.connection import connect

    connection = connect(layout.database)
    intents.wish(connection, "up", {"reason": "asked to run"}, now=1.0)
    connection.close()


STATES: dict[str, tuple[Callable[[Layout], None], set[str]]] = {
    "a broken config": (break_config, {"config"}),
    "a misspelt key": (lambda layout: set_value(layout, sede=5), {"config"}),
    "a locked key changed": (drift, {"lock"}),
    "the newest checkpoint damaged": (damage_newest, set()),
    "every checkpoint damaged": (damage_all, {"checkpoints"}),
    "the base model gone": (lose_base, {"base model"}),
    "the base model changed in its place": (change_base, {"base model"}),
    "a damaged database": (damage_database, {"database"}),
    "no database": (lose_database, {"database"}),
    "the rows of a job gone": (lose_rows, {"queue"}),
    "should run and does not": (wish_up, {"daemon", "watchdog"}),
    "a disk that is too full": (lambda layout: set_value(layout, disk={"min_free_gb": 900_000.0}), {"disk"}),
    "a GPU wanted and none there": (lambda layout: set_value(layout, train={"device": "cuda"}), {"device"}),
    "a lock file deleted": (lambda layout: (commit_steps(layout, 5, 10), None)[1], set()),
}


@pytest.mark.parametrize("state", STATES)
def test_each_prepared_state_has_its_verdict_and_what_to_do(
    inside: Run, layout: Layout, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    prepare, expected = STATES[state]
    prepare(layout)
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file() and ".db" not in path.name}
    said = inside("doctor", "--json")
    assert expected <= bad(said), said.json["checks"]
    dependent = {"queue", "last crash"} if "database" in expected else set()  # what it holds cannot be told then
    assert bad(said) - expected <= dependent
    assert said.code == (1 if bad(said) else 0)
    assert all(check["fix"] for check in said.json["checks"] if check["status"] in ("fail", "warn"))
    after = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file() and ".db" not in path.name}
    memory = {"fingerprints.json", "verified.json"}
    assert {p: d for p, d in after.items() if p.name not in memory} == {
        p: d for p, d in before.items() if p.name not in memory
    }, "looking changes nothing"


def test_a_damaged_newest_checkpoint_warns_and_names_the_one_that_is_used(inside: Run, layout: Layout) -> None:
    damage_newest(layout)
    found = checks(inside("doctor", "--json"))["checkpoints"]
    assert found["status"] == "warn"
    assert "checkpoint-10 is corrupt" in found["message"]
    assert "work goes on from checkpoint-5" in found["message"]


def test_fix_makes_what_is_missing_and_touches_nothing_else(inside: Run, layout: Layout) -> None:
    commit_steps(layout, 5, 10)
    corrupt(layout.checkpoint(10))
    shutil.rmtree(layout.inbox)
    shutil.rmtree(layout.waiting)
    assert statuses(inside("doctor", "--json"))["workspace"] == "warn"
    kept = {path: path.read_bytes() for path in layout.model.rglob("*") if path.is_file()}
    said = inside("doctor", "--fix", "--json")
    assert said.code == 0
    assert layout.inbox.is_dir()
    assert layout.config_lock.is_file()
    assert len(said.json["fixed"]) == 3
    assert statuses(said)["workspace"] == statuses(said)["lock"] == "pass"
    assert {path: path.read_bytes() for path in layout.model.rglob("*") if path.is_file()} == kept
    assert inside("doctor", "--fix", "--json").json["fixed"] == []


def test_a_driver_that_hangs_hangs_nobody(inside: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    from overnight.launchers import devices

    monkeypatch.setattr(devices.ask_gpus, "__kwdefaults__", {"limit_s": 0.3})
    said = inside("doctor", "--json")
    assert bad(said) == {"device"}
    assert "did not answer within" in checks(said)["device"]["message"]
    tool.write_text("#!/bin/sh\necho 'NVIDIA GB10, [N/A], [N/A], 41'\n")
    assert checks(inside("doctor", "--json"))["device"]["message"] == "NVIDIA GB10 (41 °C)"


def test_a_check_that_never_ends_is_told_and_the_others_are_done(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overnight.control import doctor
    from overnight.control.doctor import model

    monkeypatch.setattr(model, "LOOKS", (("base model", lambda patient: signal.pause()), ("x", lambda patient: 1 / 0)))
    found = {check.name: check for check in doctor.diagnose(layout, now=1.8e9, limit_s=1.0)}
    assert "did not end within 1 s" in found["base model"].message
    assert "ZeroDivisionError" in found["x"].message
    assert found["clock"].status.value == "pass"


def test_a_workspace_at_work_is_healthy_and_an_orphan_is_found(run: Run, rig: Rig) -> None:
    rig.make(files=1, rows=400)
    rig.simulate(step_s=0.1)
    loop = rig.start_watchdog()
    rig.wait(lambda: rig.trainer_pid() and rig.daemon_pid() and rig.step() >= 2)
    said = run("-C", str(rig.layout.root), "doctor", "--json")
    assert bad(said) <= {"base model"}  # the rig's base model is never made
    assert {statuses(said)[name] for name in ("daemon", "watchdog", "heartbeat", "orphans")} == {"pass"}
    pid = rig.daemon_pid()
    assert pid is not None
    os.kill(loop.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() is None)
    said = run("-C", str(rig.layout.root), "doctor", "--json")
    assert said.code == 1
    assert {"daemon", "watchdog", "orphans"} <= bad(said)


def test_a_daemon_that_is_stopped_is_told(run: Run, rig: Rig) -> None:
    rig.make(watch__daemon_dead_s=0.5, watch__back_up_s=1.0)
    rig.start_loop()
    pid = rig.wait(rig.daemon_pid)
    rig.wait(lambda: rig.layout.daemon_state.exists())
    os.kill(pid, signal.SIGSTOP)
    rig.wait(lambda: "daemon" in bad(run("-C", str(rig.layout.root), "doctor", "--json")))
    os.kill(pid, signal.SIGCONT)
    rig.wait(lambda: "daemon" not in bad(run("-C", str(rig.layout.root), "doctor", "--json")))


def test_it_needs_no_torch(layout: Layout) -> None:
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'trl', 'peft'): sys.modules[name] = None\n"
        f"from overnight import cli\nsys.exit(cli.run(['-C', {str(layout.root)!r}, 'doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workspace_of_another_is_told_not_broken(inside: Run, layout: Layout) -> None:
    lock = files.Lock(layout.daemon_lock)
    assert lock.acquire(holder={})  # a holder that does not say who it is
    said = inside("doctor", "--json")
    lock.release()
    assert checks(said)["daemon"]["message"] == "running (pid unknown)"
