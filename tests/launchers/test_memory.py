"""What the kernel tells of a process's memory, against processes and control groups that are really there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from control_group import MemoryGroup
from overnight.launchers import memory

HOLDING = """
import sys
kept = bytearray(b"x") * (80 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that holds 80 MiB."""
    child = subprocess.Popen([sys.executable, "-c", HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    yield child
    child.stdin.close()
    child.stdout.close()
    child.wait()


def test_what_a_process_holds_is_told(holder: subprocess.Popen[bytes]) -> None:
    held = memory.resident_bytes(holder.pid)
    assert held is not None
    assert 80 << 20 < held < 120 << 20


def test_a_process_that_is_gone_holds_nothing(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert memory.resident_bytes(holder.pid) is None


def test_the_machine_is_the_limit_where_nothing_else_is() -> None:
    room = memory.room_of(os.getpid())
    assert room is not None
    assert 0 < room.available_bytes <= room.total_bytes


def test_a_control_group_that_is_tighter_is_the_limit(holder: subprocess.Popen[bytes], group: MemoryGroup) -> None:
    group.limit(64 << 20)
    group.take(holder.pid)
    room = memory.room_of(holder.pid)
    assert room is not None
    assert room.where == "its control group"
    assert room.total_bytes == 64 << 20
    assert 0 < room.available_bytes <= 64 << 20
