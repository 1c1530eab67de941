"""overnight crashes classify: what it answers, with which exit code, and what it refuses."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

OUT_OF_MEMORY = """\
step 10 loss 2.31
Traceback (most recent call last):
  File "/home/me/train.py", line 12, in <module>
    main()
  File "/home/me/train.py", line 9, in main
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB
"""
HEALTHY = "".join(f"step {step} loss {3 - step / 100:.3f}\n" for step in range(50)) + "{'train_runtime': 12.1}\n"


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(OUT_OF_MEMORY)
    return path


def test_a_crash_is_named_with_its_evidence_and_remedy(run: Run, crashed: Path) -> None:
    said = run("crashes", "classify", str(crashed), "--exit-code", "1", "--json")
    assert said.code == 1
    answer = said.json
    assert (answer["schema"], answer["kind"]) == (1, "cuda_oom")
    assert 0.5 < answer["confidence"] <= 1
    assert answer["evidence"][0]["line"] == 7
    assert "CUDA out of memory" in answer["evidence"][0]["text"]
    assert "batch_size" in answer["remedy"]


def test_people_get_the_same_in_words(run: Run, crashed: Path) -> None:
    said = run("crashes", "classify", str(crashed))
    assert said.code == 1
    assert said.out.startswith("cuda_oom")
    assert "line 7: torch.OutOfMemoryError" in said.out
    assert "To do: " in said.out


def test_a_healthy_log_is_none_and_leaves_with_0(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "healthy.log"
    path.write_text(HEALTHY)
    assert run("crashes", "classify", str(path), "--json").json["kind"] == "none"
    assert run("crashes", "classify", str(path)).code == 0


def test_an_empty_log_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    said = run("crashes", "classify", str(tmp_path / "empty.log"), "--json")
    assert (said.code, said.json["kind"], said.json["evidence"]) == (0, "none", [])


def test_it_reads_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(OUT_OF_MEMORY.encode())))
    assert run("crashes", "classify", "-", "--json").json["kind"] == "cuda_oom"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--exit-code", "139"], "segfault"),
        (["--exit-code", "-11"], "segfault"),
        (["--signal", "SIGSEGV"], "segfault"),
        (["--signal", "segv"], "segfault"),
        (["--signal", "11"], "segfault"),
        (["--signal", "TERM"], "killed_by_signal"),
        (["--exit-code", "143"], "killed_by_signal"),
        (["--exit-code", "130"], "user_interrupt"),
        (["--exit-code", "0"], "none"),
    ],
    ids=" ".join,
)
def test_how_it_ended_counts_where_the_log_is_silent(run: Run, tmp_path: Path, options: list[str], kind: str) -> None:
    path = tmp_path / "silent.log"
    path.write_text("step 1 loss 2.5\nstep 2 loss 2.4\n")
    assert run("crashes", "classify", str(path), *options, "--json").json["kind"] == kind


@pytest.mark.parametrize(
    "options",
    [
        ["--exit-code", "1", "--signal", "KILL"],
        ["--exit-code", "256"],
        ["--exit-code", "one"],
        ["--signal", "SIGNOTHING"],
        ["--signal", "0"],
        ["--signal", "65"],
        ["--signal", ""],
    ],
    ids=" ".join,
)
def test_an_end_that_cannot_be_is_refused(run: Run, crashed: Path, options: list[str]) -> None:
    said = run("crashes", "classify", str(crashed), *options)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_what_cannot_be_read_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    missing = run("crashes", "classify", str(tmp_path / "nothing.log"))
    folder = run("crashes", "classify", str(tmp_path))
    assert (missing.code, folder.code) == (2, 2)
    assert "no such file" in missing.err
    assert "a folder" in folder.err


def test_a_compressed_log_is_refused_and_not_called_healthy(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "train.log.gz"
    path.write_bytes(gzip.compress(OUT_OF_MEMORY.encode()))
    said = run("crashes", "classify", str(path))
    assert said.code == 65
    assert "gzip" in said.err


def test_evidence_is_short_and_harmless(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(OUT_OF_MEMORY.replace("Tried to", "\x1b[31mTried\x1b[0m \x07\x9b2J\u202e to " + "x" * 50_000))
    said = run("crashes", "classify", str(path), "--json")
    (clue,) = said.json["evidence"]
    assert len(clue["text"]) <= 300
    assert not any(ord(character) < 32 or ord(character) in (0x9B, 0x202E) for character in clue["text"])
