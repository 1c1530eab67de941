"""Who may touch what: the table of docs/ARCHITECTURE.md, read from the source itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "overnight"
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(path: Path) -> set[str]:
    """Return every dotted call in a module, such as "os.rename" or ".unlink"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            target = node.func
            if isinstance(target, ast.Attribute):
                owner = target.value.id if isinstance(target.value, ast.Name) else ""
                found.add(f"{owner}.{target.attr}")
                found.add(f".{target.attr}")
            elif isinstance(target, ast.Name):
                found.add(target.id)
    return found


def opens_for_write(path: Path) -> bool:
    """Return whether a module opens a file for writing with the plain calls."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            modes += [k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
            if name == "open" and any(isinstance(mode, str) and set(mode) & set("wxa+") for mode in modes):
                return True
            if name in ("write_text", "write_bytes"):
                return True
    return False


RULES = {
    "ending processes": (
        {"os.kill", "os.killpg", "signal.pidfd_send_signal", "subprocess.Popen", "subprocess.run"},
        ("launchers/", "daemon/watchdog.py", "demo"),
    ),
    "forking": ({"os.fork"}, ("trainer/spare.py", "launchers/aside.py")),
    "renaming and removing": (
        {"os.rename", "os.replace", "os.unlink", "os.remove", "shutil.rmtree", "shutil.move", ".unlink", ".rmdir"},
        ("disk/files.py", "trainer/"),
    ),
    "connecting to SQLite": ({"sqlite3.connect"}, ("database/",)),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_only_the_named_modules_do_it(rule: str) -> None:
    forbidden, allowed = RULES[rule]
    offenders = {
        name_of(path): sorted(calls(path) & forbidden)
        for path in MODULES
        if calls(path) & forbidden and not name_of(path).startswith(allowed)
    }
    assert offenders == {}


def test_files_are_written_in_one_module_only() -> None:
    allowed = ("disk/files.py", "trainer/", "demo")
    offenders = [name_of(path) for path in MODULES if opens_for_write(path) and not name_of(path).startswith(allowed)]
    assert offenders == []


def test_the_rules_catch_a_planted_violation(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import os, subprocess\nos.kill(1, 9)\nopen('x', 'w')\n")
    assert "os.kill" in calls(planted)
    assert opens_for_write(planted)


def test_no_module_grows_into_a_second_house() -> None:
    long = {name_of(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_every_module_and_public_name_says_what_it_is_for() -> None:
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(name_of(path))
    assert silent == []
