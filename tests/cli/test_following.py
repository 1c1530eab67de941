"""The end of a log, and going on as it grows: each line once, whatever comes while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from overnight.cli import following


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_S", 0.001)


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def take(lines: Iterator[str], count: int) -> list[str]:
    return [next(lines) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [("a\nb\nc\n", 2, ["b", "c"]), ("a\nb\nc", 2, ["b", "c"]), ("a\n", 9, ["a"]), ("", 3, []), ("a\nb\n", 0, [])],
)
def test_the_last_lines(tmp_path: Path, text: str, count: int, expected: list[str]) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    assert following.last_lines(path, count) == expected


def test_the_last_lines_of_a_long_log_and_of_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert following.last_lines(path, 3) == []
    path.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert following.last_lines(path, 2) == ["line 49998", "line 49999"]


def test_no_line_is_lost_or_told_twice_between_the_last_lines_and_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nthree\nfo")
    with closing(following.follow_file(path, 2)) as lines:
        assert next(lines) == "two"
        append(path, "ur\nfive\n")  # while the last lines are being told
        assert take(lines, 3) == ["three", "four", "five"]


def test_a_log_that_is_replaced_or_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    with closing(following.follow_file(path, 1)) as lines:
        assert next(lines) == "old"
        path.rename(tmp_path / "log.1")
        path.write_text("new\n")
        assert next(lines) == "new"
