"""The page on data files names every problem that a file can have."""

from __future__ import annotations

from pathlib import Path

from overnight.domain.dataset import FILE_FIXES, FileCode
from overnight.domain.row_shapes import FIXES, RowCode, RowFormat

PAGE = (Path(__file__).parents[2] / "docs" / "DATA.md").read_text()


def test_every_problem_stands_on_the_page_with_its_fix() -> None:
    assert set(FILE_FIXES) == set(FileCode)
    missing = [
        code.value for code, fix in [*FIXES.items(), *FILE_FIXES.items()] if f"| `{code.value}` | {fix} |" not in PAGE
    ]
    assert missing == []
    assert set(FIXES) == set(RowCode)


def test_every_format_stands_on_the_page() -> None:
    assert [form.value for form in RowFormat if f"`{form.value}`" not in PAGE] == []
