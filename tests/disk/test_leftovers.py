"""Unfinished writes of dead processes are told from those of living ones, and from everybody else's files."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from overnight.disk.leftovers import is_orphaned_temporary, is_temporary_of_others


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_an_unfinished_write_of_a_dead_process_is_left_over() -> None:
    assert is_orphaned_temporary(Path(f".status.json.{dead_pid()}.0123abcd.tmp"))


def test_an_unfinished_write_of_a_process_that_nobody_waited_for_is_left_over() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_orphaned_temporary(Path(f".status.json.{child.pid}.0123abcd.tmp"))
    child.wait()


def test_where_only_we_write_every_other_unfinished_write_is_left_over() -> None:
    assert is_temporary_of_others(Path(".heartbeat.json.1.0123abcd.tmp"))  # that number is another process's now
    assert not is_temporary_of_others(Path(f".heartbeat.json.{os.getpid()}.0123abcd.tmp"))
    assert not is_temporary_of_others(Path("heartbeat.json"))


def test_the_write_of_a_living_process_is_not() -> None:
    assert not is_orphaned_temporary(Path(f".status.json.{os.getpid()}.0123abcd.tmp"))


def test_out_of_handles_no_living_writer_is_taken_for_gone() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        is_left = is_orphaned_temporary(Path(f".status.json.{os.getpid()}.0123abcd.tmp"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not is_left


@pytest.mark.parametrize("name", ["status.json", ".hidden", "a.tmp", ".a.tmp", ".a.12x.0123abcd.tmp", ".a.12.xyz.tmp"])
def test_other_names_are_nobody_s_leftovers(name: str) -> None:
    assert not is_orphaned_temporary(Path(name))
