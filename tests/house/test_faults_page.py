"""Each test that docs/FAULTS.md names exists; the groups that are listed whole are whole."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHOLE = {
    "A": (1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14),
    "B": (15, 16, 17, 18, 20, 21, 23, 24, 25, 26, 27, 28),
    "C": (29, 31, 32, 33, 34, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45),
    "D": (46, 47, 48, 49, 52, 53, 54, 55, 56, 57, 58),
    "E": (61, 62, *range(64, 85)),
    "F": (85, 86, 88, 89, 90, 91, 92, 93, 95, 96, 97),
    "G": (99, 100, 101, 102, 103, 104),
    "H": (105, 106, 107, 108, 110, 111, 112, 113),
    "I": (115, 116, 117, 119, 120, 122, 123, 124, 125),
    "J": (126, 128, 129, 130, 131, 132, 133, 134, 135, 136),
    "K": (139, 140, 141, 142, 143, 144, 145),
    "L": (146, *range(148, 162)),
    "M": (163, 164, 165, 166, 167, 168, 170, 171, 172, 173, 174, 175, 176),
    "O": (189, 190, 192, 193, 194, 195, 196, 197, 201, 202, 203, 204),
}
"""The numbers of the groups that are listed whole; the catalogue leaves some out."""

REASON = re.compile(r"^no test: (?!not yet)\w+ .{20,}")


def rows() -> list[list[str]]:
    """Return number, fault, outcome and test of each row of the page."""
    lines = (ROOT / "docs" / "FAULTS.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ") and not line.startswith("| no.")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_fault_names_a_test_that_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "FAULTS.md").read_text()))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^\s*def (test_\w+)", path.read_text(), flags=re.MULTILINE))
    assert len(named) > 80
    assert named - there == set()


def test_every_row_has_a_number_a_fault_an_outcome_and_a_test_or_a_reason() -> None:
    assert [row for row in rows() if len(row) != 4 or not all(row)] == []
    assert [row for row in rows() if "`test_" not in row[3] and not REASON.match(row[3])] == []


def test_the_groups_that_are_listed_whole_are_whole() -> None:
    listed = {number for row in rows() for number in row[0].split(", ")}
    expected = {f"{group}{number}" for group, numbers in WHOLE.items() for number in numbers}
    assert expected - listed == set()
