"""Evidence of a process that hangs: what the kernel says of it, and where each of its threads stands.

All of it has deadlines, and nothing of it may wait for the process that hangs: whoever asks does so beside the loop.
Stacks come from two sides. The trainer's own fault handler writes them when it gets SIGUSR1; it needs no lock of the
interpreter, so it also works inside native code that never returns, but not in a process that is stopped. From outside
py-spy reads them, native frames too, where the system allows to trace the process; and the kernel tells in which of its
calls each thread waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from overnight.launchers import processes
from overnight.launchers.processes import PROC, Identity

PY_SPY_S = 5.0
OWN_WORD_S = 1.0
MOST_BYTES = 256 << 10
MOST_THREADS = 64


def facts(process: Identity) -> dict[str, Any]:
    """Return what the kernel says of a process; what cannot be read says why."""
    folder = PROC / str(process.pid)
    threads = {}
    for name in _names(folder / "task")[:MOST_THREADS]:
        thread = folder / "task" / name
        threads[name] = {part: _text(thread / part) for part in ("comm", "wchan", "syscall", "stack", "schedstat")} | {
            "state": _line(thread / "status", "State")
        }
    return {
        "pid": process.pid,
        "started": process.started,
        "state": _line(folder / "status", "State"),
        "status": _pairs(folder / "status"),
        "io": _pairs(folder / "io"),
        "limits": _text(folder / "limits").splitlines(),
        "open_files": len(_names(folder / "fd")),
        "files": {name: _target(folder / "fd" / name) for name in _names(folder / "fd")[:MOST_THREADS]},
        "oom_score": _text(folder / "oom_score"),
        "cgroup": _text(folder / "cgroup").splitlines(),
        "session": [
            {"pid": member.pid, "state": _line(PROC / str(member.pid) / "status", "State")}
            for member in processes.session_members(process.pid)
        ],
        "threads": threads,
    }


def stacks(process: Identity, log: Path) -> str:
    """Return the stacks of all threads, from every source that answers in time; takes some seconds at most."""
    state = _line(PROC / str(process.pid) / "status", "State")[:1]
    parts = [
        (
            "the trainer's own fault handler",
            own_word(process, log) if state != "T" else "it is stopped and cannot answer",
        ),
        ("py-spy", py_spy(process, is_stopped=state == "T")),
    ]
    return "".join(f"=== {title}\n{text.strip()}\n\n" for title, text in parts)


def own_word(process: Identity, log: Path) -> str:
    """Ask the trainer for its stacks, and return what it then writes into its log; never where that would end it."""
    if not _handles(process, signal.SIGUSR1):
        return "it has no fault handler (yet)"
    try:
        begin = os.stat(log).st_size
    except OSError as error:
        return f"its log cannot be read: {error}"
    processes.send(process, signal.SIGUSR1)
    deadline, seen = time.monotonic() + OWN_WORD_S, begin
    while time.monotonic() < deadline:
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            size = os.stat(log).st_size
            if size > begin and size == seen:
                break
            seen = size
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(begin)
        text = file.read(MOST_BYTES).decode("utf-8", "backslashreplace")
        if text:
            return text
    return f"it did not answer within {OWN_WORD_S:g} s"


def py_spy(process: Identity, *, is_stopped: bool) -> str:
    """Return what py-spy sees. A stopped process is read as it lies: to trace it would wait for it to run."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")
    if program is None:
        return "py-spy is not installed"
    said = ""
    for options in [["--nonblocking"]] if is_stopped else [["--native"], ["--nonblocking"]]:
        is_fine, text = _run([program, "dump", "--pid", str(process.pid), *options])
        said += text
        if is_fine:
            return text
    return said


def _run(command: list[str]) -> tuple[bool, str]:
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        return False, f"{command[0]}: {error}\n"
    try:
        output, _ = child.communicate(timeout=PY_SPY_S)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=1.0)
        return False, f"{' '.join(command[1:])}: no answer within {PY_SPY_S:g} s\n"
    return child.returncode == 0, output[:MOST_BYTES].decode("utf-8", "backslashreplace")


def _handles(process: Identity, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal: without one it would be the end of it."""
    if not processes.is_alive(process):
        return False
    with contextlib.suppress(ValueError):
        return bool(int(_line(PROC / str(process.pid) / "status", "SigCgt") or "0", 16) >> (number - 1) & 1)
    return False


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=lambda name: (len(name), name))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:MOST_BYTES].decode("utf-8", "backslashreplace").strip()
    except OSError as error:
        return f"({error.strerror})"


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        return f"({error.strerror})"


def _pairs(path: Path) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in _text(path).splitlines())}


def _line(path: Path, name: str) -> str:
    return _pairs(path).get(name, "")
