"""The documents tell the truth: every verb and setting stands in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from overnight.domain.config import Settings, flatten, known_keys

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "SETTINGS.md").read_text()
    missing = [key for key in known_keys() if "." in key and f"`{key}`" not in page]
    assert missing == []
    defaults = flatten(Settings(model_name="m", base_model="b").to_json())
    assert f"`{defaults['checkpoint.every_steps']}`" in page


@pytest.mark.parametrize("page", ["settings", "commands", "tree"])
def test_a_made_page_is_the_one_that_the_code_makes(page: str) -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"make_{page}_page")], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / f"{page.upper()}.md").read_text() == made, "run: make docs"


def verbs() -> list[str]:
    shown = subprocess.run(
        [sys.executable, "-m", "overnight", "--help"], capture_output=True, text=True, check=True
    ).stdout
    lines = shown[shown.index("Commands") :].splitlines()[1:]
    return [line.split()[0] for line in lines if line.startswith("  ") and line[2:3].isalpha()]


def test_every_verb_is_documented() -> None:
    page = (ROOT / "docs" / "COMMANDS.md").read_text()
    found = verbs()
    assert len(found) > 15
    missing = [verb for verb in found if f"`overnight {verb}" not in page and f"overnight {verb}" not in page]
    assert missing == []


@pytest.mark.parametrize("word", ["/" + "work/", "/root/"])
def test_no_file_names_a_place_on_somebodys_machine(word: str) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    offenders = [
        name for name in listed
        if (ROOT / name).is_file() and not name.startswith("tests/house/")
        and word in (ROOT / name).read_text(errors="ignore")
    ]  # fmt: skip
    assert offenders == []
