"""A look at a real process: what it does, what it used, whether others work for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from overnight.domain.vitals import Vitals
from overnight.launchers import witness
from overnight.launchers.processes import PROC, Identity, identify
from overnight.launchers.vitals import look

pytestmark = pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc")


@contextmanager
def process(code: str) -> Iterator[Identity]:
    """Run a program in a session of its own."""
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        found = identify(child.pid)
        assert found is not None
        yield found
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def until(found: Identity, condition: Callable[[Vitals], bool], *, for_children: bool = False) -> Vitals:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = look(found, for_children=for_children)
        assert seen is not None
        if condition(seen):
            return seen
        time.sleep(0.02)
    raise AssertionError(f"never so: {seen}")


def test_one_that_sleeps_one_that_computes_and_one_that_is_stopped_are_told_apart() -> None:
    with process("import time; time.sleep(60)") as sleeper:
        before = until(sleeper, lambda seen: seen.state == "S")
        os.kill(sleeper.pid, signal.SIGSTOP)
        assert until(sleeper, lambda seen: seen.state == "T").cpu_s - before.cpu_s < 0.5
    with process("while True: pass") as worker:
        before = until(worker, lambda seen: seen.cpu_s > 0)
        assert before.main == worker.pid
        until(worker, lambda seen: seen.cpu_s > before.cpu_s + 0.1)


def test_the_wait_for_a_processor_grows_where_there_are_too_few() -> None:
    crowd = "import os\nfor _ in range(4 * (os.cpu_count() or 1)):\n    if os.fork() == 0: break\nwhile True: pass"
    with process(crowd) as worker:
        before = until(worker, lambda seen: seen.cpu_s > 0)
        if not before.waited_s:
            pytest.skip("this kernel keeps no books of waits")
        until(worker, lambda seen: seen.waited_s[worker.pid] > before.waited_s[worker.pid] + 0.1)


def test_children_are_seen_where_they_are_looked_for() -> None:
    with process("import subprocess; subprocess.run(['sleep', '60'])") as parent:
        assert until(parent, lambda seen: seen.has_children, for_children=True).has_children
        assert until(parent, lambda seen: True).has_children is False


def test_what_is_read_and_written_is_counted() -> None:
    with process("f = open('/dev/zero', 'rb')\nwhile True: f.read(4096)") as reader:
        before = until(reader, lambda seen: True)
        until(reader, lambda seen: seen.io_bytes > before.io_bytes + (1 << 20))


def test_one_that_is_gone_or_another_says_nothing() -> None:
    with process("pass") as gone:
        pass
    assert look(gone) is None
    me = identify(os.getpid())
    assert me is not None
    assert look(Identity(pid=me.pid, started=me.started - 1, boot=me.boot)) is None


def test_one_without_a_fault_handler_is_not_ended_by_asking_for_its_stacks() -> None:
    with process("import time; time.sleep(60)") as sleeper:
        until(sleeper, lambda seen: seen.state == "S")
        text = witness.stacks(sleeper, witness.PROC / "self" / "stat")
        assert "it has no fault handler" in text
        assert "sleep" in text or "py-spy" in text
        assert look(sleeper) is not None
        facts = witness.facts(sleeper)
        assert facts["threads"][str(sleeper.pid)]["state"].startswith("S")
