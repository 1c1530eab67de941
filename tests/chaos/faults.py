"""What is done to processes: real signals, the kernel's freezer, hogs on every core. All is taken back at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaos.members import Member


def strike(victims: Sequence[Member], number: int) -> list[Member]:
    """Send a signal to several at the same instant; return those that were there."""
    return [member for member in victims if member.send(number)]


class Freezer:
    """The kernel's freezer: a frozen process does nothing; with cgroup v1 it cannot even die before it is thawed."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.is_available = False
        self.why = ""

    def open(self) -> Freezer:
        """Mount the freezer for ourselves. Without the right to, it says why."""
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-freezer-"))
        done = subprocess.run(
            ["mount", "-t", "cgroup", "-o", "freezer", "none", str(self.folder)], capture_output=True, text=True
        )
        if done.returncode != 0:
            self.why = f"no cgroup v1 freezer here: {done.stderr.strip()}"
            return self
        try:
            (self.folder / self._name).mkdir()
        except OSError as error:
            self.why = f"no cgroup may be made here: {error}"
            return self
        self.is_available = True
        return self

    @property
    def _name(self) -> str:
        return f"chaos-{os.getpid()}"

    @contextmanager
    def frozen(self, victims: Sequence[Member]) -> Iterator[None]:
        """Hold processes frozen."""
        assert self.folder is not None
        group = self.folder / self._name
        for member in victims:
            with contextlib.suppress(OSError):
                (group / "cgroup.procs").write_text(str(member.pid))
        (group / "freezer.state").write_text("FROZEN")
        try:
            yield
        finally:
            (group / "freezer.state").write_text("THAWED")
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (self.folder / "cgroup.procs").write_text(pid)

    def close(self) -> None:
        if self.folder is None:
            return
        if self.is_available:
            group = self.folder / self._name
            with contextlib.suppress(OSError):
                (group / "freezer.state").write_text("THAWED")
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (self.folder / "cgroup.procs").write_text(pid)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)
        subprocess.run(["umount", str(self.folder)], capture_output=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


@contextmanager
def famine(victims: Sequence[Member]) -> Iterator[None]:
    """Keep every core busy twice over, and put the victims last in line."""
    count = 2 * len(os.sched_getaffinity(0))
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    before: list[tuple[Member, int]] = []
    for member in victims:
        with contextlib.suppress(OSError):
            before.append((member, os.getpriority(os.PRIO_PROCESS, member.pid)))
            os.setpriority(os.PRIO_PROCESS, member.pid, 19)
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.wait()
        for member, nice in before:
            if member.is_alive():
                with contextlib.suppress(OSError):  # without the right it stays where it is
                    os.setpriority(os.PRIO_PROCESS, member.pid, nice)


def rot(folder: Path, luck: float) -> str:
    """Damage one file of a checkpoint as a bad disk does, one byte or the end of it; return what was done."""
    names = sorted(
        path for path in folder.iterdir()
        if path.suffix in (".safetensors", ".pt", ".bin") or path.name in ("state.json", "trainer_state.json")
    )  # fmt: skip
    path = names[int(luck * len(names))]
    data = bytearray(path.read_bytes())
    if luck * 100 % 1 < 0.5:
        place = int(len(data) * (luck * 10 % 1))
        data[place] ^= 1
        path.write_bytes(data)
        return f"{path.name}: byte {place} changed"
    os.truncate(path, len(data) // 2)
    return f"{path.name}: cut in half"


SIGNALS = {
    "kill": (signal.SIGKILL,),
    "several": (signal.SIGKILL,),
    "tree": (signal.SIGKILL,),
    "term": (signal.SIGTERM,),
    "crash": (signal.SIGSEGV, signal.SIGABRT),
    "stop": (signal.SIGSTOP,),
}
