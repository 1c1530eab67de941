"""The command line as a whole: exit codes, help, JSON, words without tracebacks, and what it must not load."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight import __main__ as entry
from overnight import cli
from overnight.database import queue as jobs
from overnight.database.connection import connect
from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.job import Priority
from overnight.launchers import aside

Run = Callable[..., Any]

READING = [
    "status",
    "queue",
    "config show",
    "config check",
    "config schema",
    "config lock",
    "checkpoints",
    "verify",
    "logs",
]
QUIET = [*READING, "pause", "resume", "stop", "skip", "down"]


def submit(layout: Layout, name: str = "a") -> int:
    connection = connect(layout.database)
    try:
        return jobs.submit(
            connection, claim=name, file=f"{name}.jsonl", sha256="5" * 64, dataset="d", priority=Priority.NORMAL,
            examples=64, accounting={}, rejection=None, now=1.7e9,
        ).id  # fmt: skip
    finally:
        connection.close()


# help


def test_the_help_lists_exactly_the_verbs_that_work(run: Run) -> None:
    shown = run("--help").out
    listed = [line.split()[0] for line in shown[shown.index("Commands:") :].splitlines()[1:] if line.strip()]
    assert listed == [verb for verb in cli.VERBS if verb in listed]
    assert set(listed) == set(cli._command().commands)
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("verb", [*[verb for verb in cli._command().commands if verb != "config"], "config set"])
def test_every_verb_explains_itself(run: Run, verb: str) -> None:
    said = run(*verb.split(), "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: overnight {verb}")
    options = [line for line in said.out.splitlines() if line.lstrip().startswith("-")]
    assert all(len(line.split(maxsplit=1)) > 1 for line in options)


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").out.startswith("overnight ")


# exit codes


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status"], 0),
        (["nonsense"], 2),
        (["status", "--nonsense"], 2),
        (["cancel"], 2),
        (["cancel", "x"], 2),
        (["cancel", "../../config.json"], 2),
        (["cancel", "7"], 2),
        (["retry", "7"], 2),
        (["move", "7", "--priority", "high"], 2),
        (["move", "7", "--priority", "urgent"], 2),
        (["move", "../../config.json", "--priority", "high"], 2),
        (["up", "--detach", "--until-idle"], 2),
        (["logs", "nonsense"], 2),
        (["init"], 2),
        (["config", "set", "train.batch_size"], 2),
        (["config", "set", "train.batch_size", "0"], 78),
        (["config", "set", "nonsense", "0"], 78),
        (["init", "new", "--base-model", "/gone"], 78),
        (["skip"], 0),
        (["resume"], 0),
        (["pause"], 0),
        (["stop"], 0),
        (["down"], 0),
        (["config", "check"], 0),
        (["verify"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes(inside: Run, words: list[str], code: int) -> None:
    said = inside(*words)
    assert said.code == code
    assert "Traceback" not in said.err
    assert bool(said.err.strip()) == (code != 0) or words == ["pause"]


def test_a_global_option_behind_the_verb_is_told_where_it_belongs(run: Run) -> None:
    said = run("status", "-C", "somewhere")
    assert said.code == 2
    assert "overnight -C DIR VERB" in said.err


def test_wrong_workspace_is_2_and_nothing_is_made(run: Run, tmp_path: Path) -> None:
    for name in ("missing", "nul\0"):
        said = run("-C", str(tmp_path / name), "status")
        assert said.code == 2
        assert "no workspace" in said.err or "null byte" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_dead_daemon_is_69(inside: Run, layout: Layout) -> None:
    connection = connect(layout.database)
    connection.execute("INSERT INTO intents VALUES ('up', '{}', 1.0)")
    connection.close()
    said = inside("status", "--json")
    assert (said.code, said.json["state"]) == (69, "dead")
    assert inside("down").code == 0
    assert inside("status").code == 0


def test_up_beside_another_daemon_is_75_and_names_it(inside: Run, layout: Layout) -> None:
    lock = files.Lock(layout.daemon_lock)
    assert lock.acquire(holder={"pid": 4711, "host": "night", "since": 1.7e9})
    said = inside("up", "--detach")
    lock.release()
    assert said.code == 75
    assert "pid 4711 on night since 2023-11-14T22:13:20Z" in said.err


def test_up_with_refused_settings_is_78_and_starts_nothing(inside: Run, layout: Layout) -> None:
    layout.config.write_text("{")
    assert inside("up", "--detach").code == 78
    assert not layout.watchdog_lock.exists()


def test_a_full_disk_is_73(inside: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        raise files.disk_error(OSError(28, "No space left on device"), path)

    monkeypatch.setattr(files, "write_durably", full)
    said = inside("config", "set", "train.batch_size", "4")
    assert said.code == 73
    assert "the disk is full" in said.err


def test_a_found_problem_is_1(inside: Run, layout: Layout) -> None:
    layout.checkpoint(5).mkdir()
    assert inside("verify").code == 1


def test_a_refused_config_is_78_for_its_check(inside: Run, layout: Layout) -> None:
    layout.config.write_text('{"model_name": 4}')
    said = inside("config", "check", "--json")
    assert said.code == 78
    assert said.json["ok"] is False
    assert {problem["key"] for problem in said.json["problems"]} == {"model_name", "base_model"}


# errors


@pytest.mark.parametrize(
    "words", [["cancel", "7", "--json"], ["nonsense", "--json"], ["config", "set", "nonsense", "1", "--json"]]
)
def test_an_error_is_one_object_where_json_was_asked_for(inside: Run, words: list[str]) -> None:
    said = inside(*words)
    assert said.json["schema"] == 1
    assert {"code", "message", "found", "expected", "fix", "exit_code"} <= set(said.json["error"])
    assert said.json["error"]["exit_code"] == said.code


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_words_not_a_traceback(inside: Run, layout: Layout, damage: bytes) -> None:
    layout.database.write_bytes(damage)
    for suffix in ("-wal", "-shm"):
        Path(f"{layout.database}{suffix}").unlink(missing_ok=True)
    said = inside("status")
    assert said.code in (0, 1)
    assert "Traceback" not in said.err


def test_an_error_of_our_own_is_words_and_debug_shows_where(
    inside: Run, run: Run, layout: Layout, monkeypatch: Any
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("overnight.status.snapshot", fail)
    said = inside("status")
    assert said.code == 1
    assert "ZeroDivisionError: planted" in said.err
    with pytest.raises(ZeroDivisionError):
        run("--debug", "-C", str(layout.root), "status")


def test_a_locked_database_is_words(inside: Run, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overnight.database.connection.BUSY_TIMEOUT_S", 0.01)
    blocker = sqlite3.connect(layout.database, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    said = inside("pause")
    blocker.close()
    assert said.code == 75
    assert "locked" in said.err


# answers


@pytest.mark.parametrize("verb", QUIET)
def test_every_answer_in_json_is_one_object_with_its_schema(inside: Run, layout: Layout, verb: str) -> None:
    submit(layout)
    said = inside(*verb.split(), "--json")
    assert said.code == 0
    assert said.json["schema"] == 1


def test_a_job_has_the_promised_fields(inside: Run, layout: Layout) -> None:
    submit(layout)
    (job,) = inside("queue", "--json").json["jobs"]
    assert set(job) == {
        "id", "file", "sha256", "state", "priority", "examples", "steps", "attempts", "reason", "submitted_at",
        "finished_at",
    }  # fmt: skip
    assert (job["id"], job["state"], job["submitted_at"]) == (1, "queued", "2023-11-14T22:13:20Z")


def test_a_job_is_cancelled_retried_and_moved(inside: Run, layout: Layout) -> None:
    job = str(submit(layout))
    assert inside("move", job, "--priority", "high", "--json").json["job"]["priority"] == "high"
    assert inside("cancel", job, "--json").json["job"]["state"] == "cancelled"
    assert "cancelled already" in inside("cancel", job).out
    assert inside("retry", job, "--json").json["job"]["state"] == "queued"


def test_the_queue_of_many_is_cut_for_people_and_whole_for_programs(inside: Run, layout: Layout) -> None:
    for number in range(30):
        submit(layout, f"f{number:02d}")
    assert "and 10 more" in inside("queue").out
    assert len(inside("queue", "--all").out.splitlines()) == 31
    assert len(inside("queue", "--json").json["jobs"]) == 30


def test_events_are_one_object_a_line(inside: Run, layout: Layout) -> None:
    submit(layout)
    inside("pause")
    told = [json.loads(line) for line in inside("events", "--json").out.splitlines()]
    assert [event["kind"] for event in told] == ["workspace.made", "job.queued", "operator.pause"]
    assert all({"id", "at", "kind", "level", "message", "data", "schema"} <= set(event) for event in told)
    assert len(inside("events", "-n", "1").out.splitlines()) == 1


def test_a_name_that_steers_a_terminal_is_shown_not_obeyed(inside: Run, layout: Layout) -> None:
    connection = connect(layout.database)
    connection.execute(
        "INSERT INTO jobs (claim, file, sha256, state, priority, submitted_at)"
        " VALUES ('x', ?, '', 'queued', 'normal', 1)",
        ("\x1b[2J\n[ERROR]\u202egnp.jsonl",),
    )
    connection.close()
    for verb in ("queue", "status"):
        out = inside(verb).out
        assert "\x1b" not in out
        assert "\\x1b[2J\\n[ERROR]\\u202egnp.jsonl" in out


def test_logs_show_the_end_and_neutralise_escapes(inside: Run, layout: Layout) -> None:
    layout.log("daemon").write_bytes(b"".join(b"line %d\n" % n for n in range(100)) + b"bad \x1b[31m \xff\n")
    said = inside("logs", "-n", "2")
    assert said.out.splitlines()[0] == "line 99"
    assert said.out.splitlines()[1].startswith("bad \\x1b[31m")
    assert len(inside("logs", "daemon", "--json").json["lines"]) == 50
    assert "not there yet" in inside("logs", "anti-stuck").err


def test_guards_are_shown_as_a_board(inside: Run) -> None:
    assert {guard["name"] for guard in inside("status", "--guards", "--json").json["guards"]} >= {"watchdog", "daemon"}
    assert "anti-stuck" in inside("status", "--guards").out


def test_the_workspace_may_come_from_the_environment_or_the_current_folder(
    run: Run, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(layout.root))
    assert run("status", "--json").json["workspace"] == str(layout.root)
    monkeypatch.setenv("OVERNIGHT_WORKSPACE", str(tmp_path))
    assert run("status").code == 2
    assert run("-C", str(layout.root), "status").code == 0
    monkeypatch.delenv("OVERNIGHT_WORKSPACE")
    monkeypatch.chdir(layout.root)
    assert run("status").code == 0


# real processes


def python(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "overnight", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=30, check=False, **more,
    )  # fmt: skip


def test_a_process_gives_its_exit_code_and_keeps_stdout_for_the_answer(layout: Layout) -> None:
    assert python("-C", str(layout.root), "status").returncode == 0
    done = python("-C", str(layout.root), "cancel", "9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("overnight: There is no job 9\n  Found:    job 9\n  Expected: ")


def test_reading_loads_no_torch_and_a_start_loads_no_more_than_it_needs(layout: Layout) -> None:
    heavy = ["torch", "transformers", "numpy", "tokenizers", "rich", "msgspec", "jinja2", "pydantic"]
    script = (
        "import sys\nfrom overnight import cli\n"
        f"assert cli.run(['-C', {str(layout.root)!r}, 'status']) == 0\n"
        f"print([name for name in {heavy} + ['overnight.domain.config'] if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_closed_pipe_is_no_traceback(layout: Layout) -> None:
    words = f"{sys.executable} -m overnight -C {layout.root} config schema | head -n 1"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_name_in_no_encoding_is_no_traceback(tmp_path: Path) -> None:
    bad = os.fsdecode(b"\xff\xfe.jsonl")
    done = python("-C", str(tmp_path / bad), "status", env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert "\\udcff\\udcfe.jsonl is no workspace" in done.stderr


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["status"], "status"),
        (["-C", "status", "up"], "up"),
        (["--workspace", "add", "--debug", "down"], "down"),
        (["--workspace=x", "logs", "-f"], "logs"),
        (["-Cx", "doctor"], "doctor"),
        (["--help"], None),
        (["-C"], None),
    ],
)
def test_the_verb_is_not_mistaken_for_a_workspace_of_that_name(words: list[str], verb: str | None) -> None:
    assert entry.verb(words) == verb


def test_who_only_looks_gives_way_to_the_training(layout: Layout) -> None:
    command = [sys.executable, "-m", "overnight", "-C", str(layout.root), "events", "-f"]
    expected = min(19, os.getpriority(os.PRIO_PROCESS, 0) + aside.NICENESS)
    deadline = time.monotonic() + 60
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as looking:
        try:
            while os.getpriority(os.PRIO_PROCESS, looking.pid) != expected and time.monotonic() < deadline:
                time.sleep(0.02)
            assert os.getpriority(os.PRIO_PROCESS, looking.pid) == expected
        finally:
            looking.kill()
