"""A process that has loaded torch and forks trainers: ``python forking_rig.py FOLDER``, one attempt directory a line.

So a sweep over many kills pays for loading torch once. It answers each line with the trainer's wait status.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sweep_rig import strace


class Forker:
    """The process, seen from a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, attempt: Path) -> int:
        """Fork a trainer for an attempt; return its wait status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(attempt, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def run_killed(self, attempt: Path, call: str, when: int) -> int:
        """Fork a trainer that is killed at its n-th call; return its wait status."""
        command = strace(call, when, options=["-f", "-p", str(self.process.pid)])
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
            try:
                self._wait_until_traced(tracer)
                return self.run(attempt)
            finally:
                tracer.terminate()  # it detaches

    def _wait_until_traced(self, tracer: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while any(line == "TracerPid:\t0" for line in self._statuses()):
            assert tracer.poll() is None, tracer.stderr and tracer.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _statuses(self) -> Iterator[str]:
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                yield from path.read_text().splitlines()


@contextlib.contextmanager
def forker(folder: Path) -> Iterator[Forker]:
    """Start the process, and end it afterwards."""
    with open(folder / "forker.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", (folder / "forker.log").read_text()
        yield Forker(process)
    finally:
        process.kill()
        process.communicate()


def serve(folder: Path) -> None:
    """Load, then fork a trainer for each line on standard input."""
    from overnight.trainer import environment

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in ("cache", "tmp"):
        (folder / name).mkdir()
    os.environ.update(environment.variables(threads=1, base_model=str(folder), workspace=folder, scratch=folder))
    from overnight.trainer import __main__ as entry
    from overnight.trainer import fit  # noqa: F401 - loads torch

    print("ready", file=answers)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(entry.main([line.strip()]))
        print(os.waitpid(pid, 0)[1], file=answers)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
