"""On a read-only disk and as another user: what only looks still answers, what writes is refused in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.control import making
from overnight.disk.layout import Layout

Run = Callable[..., Any]


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A workspace on a file system that has become read-only."""
    place = tmp_path / "mount"
    place.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)):
        pytest.skip("mounting needs rights that are missing here")
    try:
        making.init(place / "w", base_model="builtin:tiny", model_name="m", assignments=[], say=lambda text: None)
        assert mount("-o", "remount,ro", str(place))
        yield place / "w"
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    "verb", ["status", "queue", "events", "checkpoints", "verify", "crashes", "config check", "config lock"]
)
def test_looking_works_on_a_read_only_disk(frozen: Path, run: Run, verb: str) -> None:
    assert run("-C", str(frozen), *verb.split()).code == 0


@pytest.mark.parametrize("verb", ["pause", "config set seed 4", "up --detach"])
def test_changing_is_refused_on_a_read_only_disk(frozen: Path, run: Run, verb: str) -> None:
    said = run("-C", str(frozen), *verb.split())
    assert said.code == 73
    assert "To do:" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_another_users_workspace_is_refused_by_name(layout: Layout) -> None:
    with tempfile.TemporaryDirectory() as outside:  # where others may go, too
        os.chmod(outside, 0o755)
        root = shutil.copytree(layout.root, Path(outside) / "workspace")
        script = (
            "import os, sys\nfrom overnight import cli\n"
            f"words = ['-C', {str(root)!r}, sys.argv[1]]\n"
            "assert cli.run(words) == 0\n"  # everything is imported now: the interpreter is closed to others
            "os.setgid(65534); os.setgroups([]); os.setuid(65534)\n"
            "sys.exit(cli.run(words))"
        )
        for verb in ("status", "pause"):
            done = subprocess.run([sys.executable, "-c", script, verb], capture_output=True, text=True, check=False)
            assert done.returncode == 73
            assert f"This user may not use {root}/.overnight/state.db" in done.stderr
            assert "uid 0" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_what_root_looks_at_and_changes_stays_usable_for_the_owner(layout: Layout) -> None:
    with tempfile.TemporaryDirectory() as outside:
        os.chmod(outside, 0o755)
        root = Path(shutil.copytree(layout.root, Path(outside) / "workspace"))
        for path in [root, *root.rglob("*")]:
            os.lchown(path, 65534, 65534)
        script = (
            "import os, sys\nfrom overnight import cli\n"
            f"said = lambda words: cli.run(['-C', {str(root)!r}, *words.split()])\n"
            "by_root = [said(words) for words in sys.argv[1].split(',')]\n"
            "os.setgid(65534); os.setgroups([]); os.setuid(65534)\n"
            "print('CODES', by_root, [said(words) for words in sys.argv[2].split(',')])"
        )
        looks = "status,verify,checkpoints,queue,cleanup --yes,config set seed 4,pause,resume"
        done = subprocess.run(
            [sys.executable, "-c", script, looks, looks.replace("4", "5")], capture_output=True, text=True, check=False
        )
        codes = done.stdout.rpartition("CODES")[2].strip()
        assert codes == f"{[0] * 8} {[0] * 8}", done.stderr
        assert (root / ".overnight" / "checkpoints.lock").stat().st_uid == 65534
        assert (root / "config.json").stat().st_uid == 65534
