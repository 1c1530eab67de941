"""Evidence of crashes on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from overnight.disk import crashes, files
from overnight.domain.errors import DiskError

VERDICT = {"schema": 1, "id": "000001-01", "kind": "segfault", "summary": "token hf_abcdefgh12345678 was there"}


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    folder = tmp_path / "attempt"
    folder.mkdir()
    (folder / "trainer.log").write_bytes(b"step 1\r\nred \x1b[31mtext\x1b[0m\rHF_TOKEN=hf_abcdefgh12345678\n")
    (folder / "heartbeat.json").write_text('{"step": 3}')
    return folder


def test_evidence_is_kept_once_and_safe_to_read(tmp_path: Path, attempt: Path) -> None:
    assert crashes.keep(tmp_path / "crashes", attempt, "000001-01", VERDICT)
    folder = tmp_path / "crashes" / "000001-01"
    assert sorted(os.listdir(folder)) == ["heartbeat.json", "trainer.log", "verdict.json"]
    log = (folder / "trainer.log").read_text()
    assert log == "step 1\nred \\x1b[31mtext\\x1b[0m\nHF_TOKEN=[removed]\n"
    assert "hf_" not in (folder / "verdict.json").read_text()
    assert crashes.read_verdict(tmp_path / "crashes", "000001-01") == json.loads((folder / "verdict.json").read_text())
    assert not crashes.keep(tmp_path / "crashes", attempt, "000001-01", {"schema": 1})


def test_a_secret_behind_an_escaped_end_of_line_is_struck_out_of_json_too(tmp_path: Path, attempt: Path) -> None:
    """In the file stands a backslash and "nhf_": no word begins with the token."""
    said = {"message": "refused:\nhf_abcdefgh12345678\n", "inside": [{"why": "x\thf_abcdefgh12345678"}], "step": 3}
    (attempt / "report.json").write_text(json.dumps(said))
    crashes.keep(tmp_path / "crashes", attempt, "000001-01", {**VERDICT, **said})
    for name in ("report.json", "verdict.json"):
        kept = (tmp_path / "crashes" / "000001-01" / name).read_text()
        assert "hf_" not in kept
        assert json.loads(kept)["message"] == "refused:\n[removed]\n"


def test_a_long_log_is_cut_to_its_end_in_whole_lines(tmp_path: Path, attempt: Path) -> None:
    (attempt / "trainer.log").write_text("".join(f"line {number}\n" for number in range(100_000)))
    crashes.keep(tmp_path / "crashes", attempt, "000001-01", VERDICT)
    lines = (tmp_path / "crashes" / "000001-01" / "trainer.log").read_text().splitlines()
    assert lines[0] == "[the beginning was cut off]"
    assert lines[-1] == "line 99999"
    assert all(line.startswith("line ") for line in lines[1:])
    assert len("\n".join(lines)) < 70_000


def test_written_halfway_it_is_finished_the_next_time(
    tmp_path: Path, attempt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_durably

    def refuse(path: Path, data: bytes, **options: int) -> None:
        if path.name == "verdict.json":
            raise DiskError("no", found="full", fix="free space")
        real(path, data, **options)

    monkeypatch.setattr(files, "write_durably", refuse)
    with pytest.raises(DiskError):
        crashes.keep(tmp_path / "crashes", attempt, "000001-01", VERDICT)
    assert crashes.read_verdict(tmp_path / "crashes", "000001-01") is None
    monkeypatch.undo()
    assert crashes.keep(tmp_path / "crashes", attempt, "000001-01", VERDICT)
    assert crashes.read_verdict(tmp_path / "crashes", "000001-01") is not None


def test_a_fifo_or_a_link_in_place_of_a_file_is_passed_over(tmp_path: Path, attempt: Path) -> None:
    os.mkfifo(attempt / "stacks.txt")
    (attempt / "process.json").symlink_to("/etc/hostname")
    crashes.keep(tmp_path / "crashes", attempt, "000001-01", VERDICT)
    assert crashes.contents(tmp_path / "crashes", "000001-01") == ["heartbeat.json", "trainer.log", "verdict.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9}', "[" * 50_000, "\x00"])
def test_a_damaged_verdict_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "verdict.json").write_text(text)
    assert crashes.read_verdict(tmp_path, "x") is None
