"""add and validate: each file gets its answer, a bad one stops no other, nothing outside is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.disk.layout import Layout

Run = Callable[..., Any]

GOOD = '{"prompt": "2+2=", "completion": "4"}\n{"text": "a b c"}\n'
BAD = '{"text": "fine"}\n{"text": 4}\n{broken\n'


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.jsonl"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jsonl"
    path.write_text(BAD)
    return path


def test_a_file_is_queued_as_a_copy_and_said_to_be_queued_not_started(inside: Run, layout: Layout, good: Path) -> None:
    said = inside("add", str(good), "--priority", "high")
    assert (said.code, said.out) == (0, f"{good}: queued as job 1 (2 rows, high priority)\n")
    assert good.read_text() == GOOD
    assert list(layout.claimed.iterdir()) == []
    assert list(layout.inbox.iterdir()) == []
    (job,) = inside("queue", "--json").json["jobs"]
    assert (job["file"], job["state"], job["examples"], job["priority"]) == ("good.jsonl", "queued", 2, "high")


def test_of_several_files_a_bad_one_stops_no_other_and_is_65(
    inside: Run, layout: Layout, good: Path, bad: Path
) -> None:
    said = inside("add", str(bad), str(good))
    assert said.code == 65
    assert "queued as job 2" in said.out
    assert "rejected: line 2" in said.err
    assert "line 3, column 2" in said.err
    assert sorted(path.name for path in layout.rejected.iterdir()) == ["bad.jsonl", "bad.jsonl.report.json"]


def test_the_answer_in_json_names_jobs_and_errors(inside: Run, good: Path, bad: Path, tmp_path: Path) -> None:
    said = inside("add", str(good), str(bad), str(tmp_path / "missing.jsonl"), "--json")
    assert said.code == 65
    assert said.json["ok"] is False
    assert [job["state"] for job in said.json["jobs"]] == ["queued", "rejected"]
    assert [(one["file"], one["code"]) for one in said.json["errors"]] == [
        (str(tmp_path / "missing.jsonl"), "ENOENT")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "a folder"),
        ("fifo", "no regular file"),
        ("dangling link", "no such file"),
        ("../../../../../../nowhere.jsonl", "no such file"),
        ("x" * 300, "too long"),
        ("nul\0.jsonl", "null"),
    ],
)
def test_what_is_no_file_is_2_and_makes_no_job(inside: Run, tmp_path: Path, kind: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling link").symlink_to(tmp_path / "nowhere")
    said = inside("add", str(tmp_path / kind))
    assert said.code == 2
    assert words in said.err
    assert inside("queue", "--json").json["jobs"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_the_right_to_read_it_is_2(inside: Run, good: Path) -> None:
    good.chmod(0)
    assert inside("add", str(good)).code == 2


@pytest.mark.parametrize(
    "name",
    ["with space.jsonl", "größe.jsonl", "-dash.jsonl", "new\nline.jsonl", "esc\x1b[2J.jsonl", "UP.JSONL", "q'\".jsonl"],
)
def test_any_name_is_taken_and_shown_safely(inside: Run, layout: Layout, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(GOOD)
    said = inside("add", "--", str(tmp_path / name))
    assert said.code == 0
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) == 1


def test_a_name_in_no_encoding_is_taken(inside: Run, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.jsonl")
    path.write_text(GOOD)
    assert inside("add", str(path)).code == 0


def test_a_name_that_is_as_long_as_a_name_can_be_is_taken(inside: Run, tmp_path: Path) -> None:
    path = tmp_path / ("n" * 249 + ".jsonl")
    path.write_text(GOOD)
    assert inside("add", str(path)).code == 0


def test_the_same_content_again_is_a_new_job_and_is_told(inside: Run, good: Path) -> None:
    inside("add", str(good))
    said = inside("add", str(good))
    assert "queued as job 2" in said.out
    assert "the same content came before as job 1" in said.err


@pytest.mark.parametrize("data", ["", "\n\n  \n"])
def test_a_file_without_rows_is_rejected_not_trained(inside: Run, tmp_path: Path, data: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(data)
    assert inside("add", str(path)).code == 65
    assert inside("validate", str(path)).code == 65


def test_bad_rows_are_left_out_where_that_is_wanted(inside: Run, bad: Path) -> None:
    inside("config", "set", "queue.bad_rows", "skip")
    said = inside("add", str(bad))
    assert (said.code, "queued as job 1 (1 rows" in said.out) == (0, True)
    assert "2 of 3 rows are bad and left out" in said.err


def test_with_broken_settings_nothing_is_added(inside: Run, layout: Layout, good: Path) -> None:
    layout.config.write_text("{")
    assert inside("add", str(good)).code == 78
    assert list(layout.claimed.iterdir()) == []


def test_validate_names_every_bad_line_and_queues_nothing(inside: Run, layout: Layout, good: Path, bad: Path) -> None:
    assert inside("validate", str(good)).code == 0
    said = inside("validate", str(bad))
    assert said.code == 65
    assert "line 2, column 2" in said.out
    assert "line 3, column 2" in said.out
    assert inside("queue", "--json").json["jobs"] == []
    assert list(layout.rejected.iterdir()) == []


def test_validate_answers_with_the_promised_fields(inside: Run, good: Path, bad: Path) -> None:
    found = inside("validate", str(good), "--json").json
    assert {"ok", "rows", "accepted", "rejected", "format", "tokens", "duplicates", "problems"} <= set(found)
    assert {"total", "max", "p95", "over_limit", "truncated", "supervised"} <= set(found["tokens"])
    tokens = found["tokens"]
    assert tokens["total"] == tokens["supervised"] + tokens["masked"] + tokens["truncated"] + tokens["dropped"]
    found = inside("validate", str(bad), "--json").json
    assert [(problem["line"], bool(problem["fix"])) for problem in found["problems"]] == [(2, True), (3, True)]


def test_validate_works_outside_a_workspace_without_tokens(
    run: Run, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = run("validate", str(good), "--json")
    assert (found.code, found.json["tokens"], found.json["rows"]) == (0, None, 2)
    assert run("-C", str(tmp_path / "nowhere"), "validate", str(good)).code == 2


def test_many_problems_are_cut_for_people_and_whole_for_programs(inside: Run, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("{broken\n" * 50)
    said = inside("validate", str(path))
    assert "and 30 more" in said.out
    assert len(json.loads(inside("validate", str(path), "--json").out)["problems"]) == 50
