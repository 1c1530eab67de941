"""Disks that are full, read-only, gone or broken: small mounts of our own, and system calls broken by strace."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def mount(*words: str) -> bool:
    """Mount something; return whether that is allowed."""
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system of our own on a folder; skips where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if not mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False).returncode == 0:
            pass


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Take every free byte but so many; return the file that holds them."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    if leave:
        os.truncate(path, max(0, path.stat().st_size - leave))
    return path


def take_inodes(folder: Path) -> Path:
    """Take every inode; return the folder that holds them."""
    path = folder / "many"
    path.mkdir()
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            (path / str(number)).touch()
    return path


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a mount read-only for everything that is opened by its path; what is open already stays writable."""
    assert mount("--bind", str(folder), str(folder))
    try:
        assert mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def broken(pid: int, *injections: str, path: Path | None = None) -> Iterator[None]:
    """Break system calls of a process and its threads, such as "fsync:error=EIO", as long as this lasts."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={calls}"]
    words += [word for injection in injections for word in ("-e", f"inject={injection}")]
    words += ["-P", str(path)] if path is not None else []
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if tracer.poll() is not None or time.monotonic() > deadline:
                pytest.skip("needs the right to trace")
            time.sleep(0.01)
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=60)
