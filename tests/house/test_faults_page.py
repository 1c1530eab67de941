"""Each test that docs/FAULTS.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_fault_names_a_test_that_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "FAULTS.md").read_text()))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^\s*def (test_\w+)", path.read_text(), flags=re.MULTILINE))
    assert len(named) > 80
    assert named - there == set()


def test_every_row_has_an_outcome_and_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "FAULTS.md").read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| fault")]
    assert [row for row in faults if row.count("|") != 4 or "`test_" not in row] == []
