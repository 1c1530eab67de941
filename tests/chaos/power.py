"""Power cuts: an ext4 file system in a file, which the kernel shuts down in place; what was never synced is gone.

PYTHONPATH=tests python -m chaos.power --cuts 50 --seed 7
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos.faults import strike
from chaos.members import guards_complete, members
from chaos.verdict import end_of, undisturbed
from chaos.watching import Watching
from chaos.workspace import SIMULATED, Workspace, name_of

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""

WITHOUT_LOG = 2
"""Not even the journal is written out: as if the power went."""

FILE_STEPS_S = 0.02
KIND = replace(SIMULATED, simulated=f"step_s={FILE_STEPS_S}")


@dataclass
class Disk:
    """A disk whose power can be cut."""

    folder: Path
    mount: Path = field(init=False)

    def __post_init__(self) -> None:
        self.mount = self.folder / "disk"

    def make(self) -> str:
        """Make the file system and mount it; return why that is not possible here, "" where it was."""
        self.mount.mkdir(parents=True)
        image = self.folder / "image"
        with open(image, "wb") as file:
            file.truncate(192 << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, text=True)
        return made.stderr.strip() if made.returncode else self._mount()

    def _mount(self) -> str:
        command = ["mount", "-t", "ext4", "-o", "loop", str(self.folder / "image"), str(self.mount)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stderr.strip() if done.returncode else ""

    def cut(self) -> None:
        """Cut the power: from here on nothing reaches the disk."""
        descriptor = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(descriptor)

    def back(self) -> None:
        """Switch it on again: the file system is recovered from its journal."""
        self.close()
        why = self._mount()
        assert not why, why

    def close(self) -> None:
        deadline = time.monotonic() + 20
        while os.path.ismount(self.mount) and time.monotonic() < deadline:
            if subprocess.run(["umount", str(self.mount)], capture_output=True).returncode != 0:
                time.sleep(0.05)
        if os.path.ismount(self.mount):
            subprocess.run(["umount", "-l", str(self.mount)], capture_output=True)


def why_not(folder: Path) -> str:
    """Return why no power can be cut here, "" where it can."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return "needs root and mkfs.ext4"
    disk = Disk(folder / "trial")
    try:
        why = disk.make()
        if not why:
            disk.cut()
    except OSError as error:
        why = str(error)
    finally:
        disk.close()
    return why


def cut_often(
    folder: Path, *, seed: int, cuts: int, tell: Callable[[str], None], python_path: str = "", stop_early: bool = False
) -> list[str]:
    """Cut the power so many times at random moments; return each broken promise."""
    disk = Disk(folder)
    why = disk.make()
    assert not why, why
    workspace = Workspace(disk.mount / "workspace", KIND, python_path=python_path)
    files = list(range(max(3, cuts)))
    complaints: list[str] = []
    try:
        workspace.init()
        workspace.add(*files)
        workspace.up()
        source = random.Random(seed)
        for number in range(1, cuts + 1):
            complaints += [f"cut {number}: {text}" for text in _cut(disk, workspace, source, number, files, tell)]
            if complaints and stop_early:
                return complaints
        return complaints + _end(folder, workspace, files)
    finally:
        workspace.end()
        disk.close()


def _cut(
    disk: Disk, workspace: Workspace, source: random.Random, number: int, files: list[int], tell: Callable[[str], None]
) -> list[str]:
    """Cut the power once, switch it on, look for what was announced, go on."""
    watching = Watching(workspace.root)
    is_after_save = source.random() < 0.5
    wanted = source.randint(2, 30)
    delay_s = source.random() * (0.004 if is_after_save else 0.1)
    first = watching.heartbeat(watching.attempt()) or {}
    deadline = time.monotonic() + 60
    announced = 0
    while True:  # poll tightly: the cut comes right after the word
        beat = watching.heartbeat(watching.attempt()) or {}
        done = len(workspace.done())
        saved, step = beat.get("checkpoint") or 0, beat.get("step") or 0
        is_new = saved > (first.get("checkpoint") or 0)
        if step >= (first.get("step") or 0) + wanted and (is_new or not is_after_save):
            break
        if len(workspace.done()) == len(files):
            break
        if time.monotonic() > deadline:
            return [f"nothing is trained\n{workspace.tail()}"]
        time.sleep(0.0005)
    announced = saved
    time.sleep(delay_s)
    disk.cut()
    while there := members(workspace.root):
        strike(there, signal.SIGKILL)
        time.sleep(0.005)
    disk.back()
    complaints = _look(workspace, announced, done, files)
    tell(f"cut {number} at step {step}, announced: checkpoint {announced}, {done} files done; {len(complaints)} losses")
    workspace.up()
    if not guards_complete(workspace.root):
        complaints.append(f"it does not come up again\n{workspace.tail()}")
    return complaints


def _look(workspace: Workspace, announced: int, done: int, files: list[int]) -> list[str]:
    """Return what was announced and is not there."""
    complaints = []
    found = workspace.json("verify")
    newest = (found.get("resume_from") or {}).get("step") or 0
    if newest < announced:
        seen = [(item["step"], item["state"], item["reason"]) for item in found.get("checkpoints", [])][:4]
        complaints.append(f"checkpoint {announced} was announced as saved; the newest whole one is {newest}: {seen}")
    jobs = workspace.json("queue").get("jobs", [])
    if len(jobs) < len(files):
        complaints.append(f"{len(files)} files were taken by add; the queue knows {len(jobs)}")
    succeeded = sum(1 for job in jobs if job["state"] == "succeeded")
    if succeeded < done:
        complaints.append(f"{done} files were done; the queue says {succeeded}")
    for number in files:
        places = [path for path in workspace.root.rglob(name_of(number)) if path.stat().st_size]
        if len(places) != 1:
            complaints.append(f"{name_of(number)} lies in {[str(path) for path in places]}")
    return complaints


def _end(folder: Path, workspace: Workspace, files: list[int]) -> list[str]:
    """Let the work end; the bytes are those of a run whose power was never cut."""
    deadline = time.monotonic() + 120
    while len(workspace.done()) < len(files):
        if time.monotonic() > deadline:
            return [f"the work does not end\n{workspace.tail()}"]
        time.sleep(0.05)
    workspace.run("up", "--until-idle", "--no-web", check=False)
    workspace.run("down", check=False)
    expected, found = undisturbed(folder / "undisturbed", KIND, files), end_of(workspace)
    if (found.step, found.digest, found.rows) != (expected.step, expected.digest, expected.rows):
        return [f"the bytes differ from the undisturbed run's: step {found.step}, expected {expected.step}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.power", description="Power cuts at random moments.")
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}; again: make power-cuts N={options.cuts} SEED={seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-power-"))
    try:
        why = why_not(folder)
        if why:
            print(f"no power can be cut here: {why}")
            return 0
        complaints = cut_often(folder / "run", seed=seed, cuts=options.cuts, tell=lambda text: print(text, flush=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for complaint in complaints:
        print(f"BROKEN: {complaint}")
    print(f"{options.cuts} power cuts, {len(complaints)} broken promises; seed {seed}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
