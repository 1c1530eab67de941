"""Logs rotate by size, cannot steer a terminal, and pass on what a trainer prints."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.disk import logs
from overnight.disk.logs import Pump, finish, open_log


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[Pump]:
    made = Pump(tmp_path / "trainer.log", tmp_path / "memory.json")
    yield made
    made.close()


def text(tmp_path: Path) -> str:
    return (tmp_path / "trainer.log").read_text()


def test_what_a_trainer_prints_arrives_line_by_line_and_once(pump: Pump, tmp_path: Path) -> None:
    source = tmp_path / "source.log"
    with open(source, "ab", buffering=0) as file:
        file.write(b"one\ntwo\nthr")
        assert pump.pump(source, "000001-01")
        file.write(b"ee\n")
        assert pump.pump(source, "000001-01")
    assert not pump.pump(source, "000001-01")
    assert text(tmp_path) == "--- attempt 000001-01\none\ntwo\nthree\n"


def test_the_next_daemon_goes_on_where_the_last_one_stopped(pump: Pump, tmp_path: Path) -> None:
    source = tmp_path / "source.log"
    source.write_text("one\n")
    pump.pump(source, "000001-01")
    source.write_text("one\ntwo\n")
    another = Pump(tmp_path / "trainer.log", tmp_path / "memory.json")
    another.pump(source, another.attempt)
    another.close()
    assert text(tmp_path) == "--- attempt 000001-01\none\ntwo\n"


def test_control_characters_and_progress_bars_are_neutralised(pump: Pump, tmp_path: Path) -> None:
    source = tmp_path / "source.log"
    source.write_bytes(b"\x1b[31mred\x1b[0m\n10%\r20%\r\n\xff\x00bytes\n")
    pump.pump(source, "a")
    assert text(tmp_path).splitlines()[1:] == ["\\x1b[31mred\\x1b[0m", "10%", "20%", "\\xff\\x00bytes"]


def test_a_line_without_an_end_is_shown_when_nothing_follows(pump: Pump, tmp_path: Path) -> None:
    source = tmp_path / "source.log"
    source.write_text("waiting")
    pump.pump(source, "a")
    pump.pump(source, "a")
    assert text(tmp_path).splitlines()[1:] == ["waiting"]


def test_a_source_that_is_missing_is_no_error(pump: Pump, tmp_path: Path) -> None:
    assert not pump.pump(tmp_path / "none.log", "a")


def test_a_chatty_trainer_s_log_is_emptied_once_it_is_pumped(
    pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SOURCE_BYTES", 1000)
    source = tmp_path / "source.log"
    with open(source, "ab", buffering=0) as file:
        for number in range(100):
            file.write(f"line {number}, with some words in it\n".encode())
        pump.pump(source, "a")
        assert source.stat().st_size == 0
        file.write(b"after\n")
    pump.pump(source, "a")
    assert text(tmp_path).splitlines()[-2:] == ["line 99, with some words in it", "after"]


def test_logs_rotate_by_size_and_a_name_with_newlines_fakes_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 2000)
    log = open_log("test_rotation", tmp_path / "daemon.log")
    try:
        for number in range(300):
            log.info("file %s", f"x\n[ERROR] \x1b[2J {number}.jsonl")
    finally:
        for handler in log.handlers[:]:
            handler.close()
            log.removeHandler(handler)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["daemon.log", *(f"daemon.log.{number}" for number in range(1, logs.LOG_FILES + 1))]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 2000
        assert all("INFO file x\\n[ERROR] \\x1b[2J" in line for line in path.read_text().splitlines())


def test_a_log_that_cannot_be_written_disturbs_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.Handler(Path("/dev/full"))
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "words", None, None))
    with contextlib.suppress(OSError):
        handler.close()
    assert capsys.readouterr().err == ""


def test_the_tail_of_a_long_log_stays(tmp_path: Path) -> None:
    path = tmp_path / "trainer.log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    finish(path, 100)
    kept = path.read_text().splitlines()
    assert kept[0] == "[the beginning was cut off]"
    assert kept[-1] == "line 999"
    assert path.stat().st_size < 200
    finish(tmp_path / "none.log", 100)


def test_a_finished_log_holds_no_secret_and_all_the_rest_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "trainer.log"
    path.write_bytes(b"\x1b[31mred\xff\r 10%\nusing hf_abcdefgh12345678 now\nlast\n")
    finish(path, 1000)
    assert path.read_bytes() == b"\x1b[31mred\xff\r 10%\nusing [removed] now\nlast\n"
    looks = path.stat()
    finish(path, 10)
    assert (path.stat().st_ino, path.stat().st_size) == (looks.st_ino, looks.st_size), "once is enough"


def test_a_log_of_one_long_line_is_not_lost_when_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "trainer.log"
    path.write_bytes(b"".join(b"\r%d%%" % number for number in range(1000)))
    finish(path, 100)
    assert path.read_bytes().endswith(b"\r998%\r999%")


def test_what_was_copied_before_a_log_was_finished_is_not_copied_twice(pump: Pump, tmp_path: Path) -> None:
    source = tmp_path / "source.log"
    source.write_text("".join(f"line {number}\n" for number in range(100)) + "no end")
    pump.pump(source, "000001-01")
    assert pump.is_drained(source)
    finish(source, 200)
    another = Pump(tmp_path / "trainer.log", tmp_path / "memory.json")
    for one in (pump, another):
        assert not one.pump(source, "000001-01")
    another.close()
    lines = text(tmp_path).splitlines()
    assert len(lines) == len(set(lines)) == 102
