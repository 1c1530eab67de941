"""A real trainer whose disk is full, then broken, then read-only while it saves: the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import disk_rig
from overnight.disk import config, needs
from overnight.disk.layout import Layout
from overnight.trainer.faults import RELEASE, VARIABLE

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(420)]


def test_full_then_broken_then_read_only_in_one_save_and_the_same_bytes(
    tmp_path: Path, make_workspace: Callable[[str], Any], write_part: Callable[[Any], None]
) -> None:
    plain = make_workspace("plain").init()
    write_part(plain)
    plain.until_idle()
    expected = plain.digest()

    disk = tmp_path / "disk"
    with disk_rig.mounted(disk, "size=64m"):
        workspace = make_workspace("disk")
        workspace.environment |= {VARIABLE: "step:7:held", RELEASE: str(tmp_path / "go")}
        workspace.init()
        write_part(workspace)
        try:
            layout = Layout(workspace.root)
            reckoned = needs.of_base(layout, config.read(layout))
            workspace.up()
            status = workspace.wait(lambda status: status["trainer"] and status["step"] >= 5, timeout=180)
            filler = disk_rig.fill(disk)
            (tmp_path / "go").touch()
            waits(workspace, "the next save needs")
            assert workspace.newest_step() == 5
            with contextlib.ExitStack() as later:
                with disk_rig.broken(status["trainer"]["pid"], "fsync:error=EIO"):
                    filler.unlink()
                    waits(workspace, "input/output error")
                    later.enter_context(disk_rig.read_only(disk))
                    waits(workspace, "read-only")
                assert workspace.newest_step() == 5
            done = workspace.wait(lambda status: status["queue"]["succeeded"] == 1, timeout=240)
            assert done["step"] == 16
            assert workspace.digest() == expected
            (job,) = workspace.json("queue")["jobs"]
            assert job["attempts"] == 1
            taken = sum(path.stat().st_size for path in (layout.checkpoint(16)).iterdir())
            assert reckoned is not None
            assert taken <= reckoned.bytes <= 2 * taken + (512 << 10), "reckoned before there was any checkpoint"
        finally:
            workspace.end()


def waits(workspace: Any, word: str) -> None:
    """Wait until status says what the save waits for."""
    workspace.wait(lambda status: status["state"] == "waiting" and word in status["reason"], timeout=120)
