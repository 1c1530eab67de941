"""Trainers as processes of this machine: each in a session of its own, found again by pid, start time and boot id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from overnight.launchers import processes
from overnight.launchers.base import Exited, LaunchError, Running
from overnight.launchers.processes import Identity

GATE = 'read -r word && exec "$@" </dev/null'
"""What a launch runs first: it waits until its handle is recorded. Where the daemon dies before that, nothing runs."""

LEFT_OUT = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONPROFILEIMPORTTIME", "PYTHONDEVMODE",
)  # fmt: skip
"""Variables that would make a trainer something else than one process that trains."""

LEFT_OUT_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_", "DEEPSPEED_")

ADDED = {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"}


class Local:
    """Starts ``python -m MODULE ATTEMPT`` and looks after it; what an earlier daemon started is found again."""

    module = "overnight.trainer"
    prefix = "local"

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._forked: set[str] = set()
        self._exits: dict[str, Exited] = {}
        self._descriptors: dict[str, int] = {}

    def start(self, folder: Path, *, workspace: Path, record: Callable[[str], None]) -> str:
        """Launch a trainer behind the gate, have its handle recorded, let it go. Raises LaunchError."""
        child = self._spawn(folder, workspace=workspace)
        assert child.stdin is not None
        with child.stdin as gate:
            identity = processes.identify(child.pid)
            if identity is None:
                child.wait()
                raise launch_error(OSError("the new process ended at once"), what="The trainer")
            handle = f"{self.prefix}:{identity}"
            try:
                record(handle)
            except BaseException:
                gate.close()  # without a word: nothing runs
                child.wait()
                raise
            self._children[handle] = child
            with contextlib.suppress(BrokenPipeError):  # somebody killed it already: the next poll tells
                gate.write(b"go\n")
        return handle

    def takes_forks(self) -> bool:
        """Return whether its trainers may be forked from a spare."""
        return True

    def adopt(self, handle: str) -> None:
        """Look after a trainer that was forked from a spare and has become our child."""
        self._forked.add(handle)

    def _spawn(self, folder: Path, *, workspace: Path) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", GATE, "overnight-trainer", *python(self.module), str(folder)]
        try:
            require_interpreter()
            log = os.open(folder / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=workspace,
                    env=clean_environment(dict(os.environ)),
                    start_new_session=True,
                    bufsize=0,
                )
            finally:
                os.close(log)
        except OSError as error:
            raise launch_error(error, what="The trainer") from error

    def poll(self, handle: str) -> Running | Exited:
        """Return whether it is still there; our own child is reaped here, and what it left behind is ended."""
        if handle in self._exits:
            return self._exits[handle]
        identity = self._identity(handle)
        child = self._children.get(handle)
        if identity is None or not (child is not None or self._is_child(handle, identity)):
            is_there = identity is not None and processes.is_alive(identity)
            if identity is not None and is_there:
                return Running(pid=identity.pid, is_ours=False)
            if identity is not None:
                processes.kill_session(identity)  # what it left behind
            return self._ended(handle, Exited(exit_code=None, signal=None))
        code = _peek(identity.pid)
        if code is None:
            return Running(pid=identity.pid, is_ours=True)
        processes.kill_session(identity)  # what it left behind, while the dead leader still holds its number
        if child is not None:
            child.wait()
        else:
            os.waitpid(identity.pid, 0)
        exited = Exited(exit_code=code, signal=None) if code >= 0 else Exited(exit_code=None, signal=-code)
        return self._ended(handle, exited)

    def _is_child(self, handle: str, identity: Identity) -> bool:
        """Return whether a forked trainer has become our child, as it should."""
        if handle not in self._forked:
            return False
        try:
            _peek(identity.pid)
        except ChildProcessError:
            return False
        return True

    def stop(self, handle: str) -> None:
        """Send SIGTERM to the trainer, if it is still that very process; a stopped one is continued to get it."""
        identity = self._identity(handle)
        if identity is not None and handle not in self._exits:
            processes.send(identity, signal.SIGTERM)
            processes.send(identity, signal.SIGCONT)

    def kill(self, handle: str) -> None:
        """Send SIGKILL to the trainer's whole session, if it is still that very process."""
        identity = self._identity(handle)
        if identity is not None and handle not in self._exits:
            processes.kill_session(identity)

    def process(self, handle: str) -> Identity | None:
        """Return which process it is, until its end was seen."""
        return self._identity(handle) if handle not in self._exits else None

    def wake(self, handle: str) -> None:
        """Send SIGCONT to the trainer, if it is still that very process."""
        process = self.process(handle)
        if process is not None:
            processes.send(process, signal.SIGCONT)

    def exit_descriptor(self, handle: str) -> int | None:
        """Return a pidfd of the trainer; it is closed when poll has seen the end."""
        if handle not in self._descriptors and handle not in self._exits:
            identity = self._identity(handle)
            descriptor = processes.open_process(identity) if identity is not None else None
            if descriptor is not None:
                self._descriptors[handle] = descriptor
        return self._descriptors.get(handle)

    def _identity(self, handle: str) -> Identity | None:
        prefix, _, rest = handle.partition(":")
        try:
            return processes.parse_identity(rest) if prefix == self.prefix else None
        except ValueError:
            return None

    def _ended(self, handle: str, exited: Exited) -> Exited:
        descriptor = self._descriptors.pop(handle, None)
        if descriptor is not None:
            os.close(descriptor)
        self._children.pop(handle, None)
        self._forked.discard(handle)
        self._exits = {handle: exited}  # only the last one is ever asked for again
        return exited


def _peek(pid: int) -> int | None:
    """Return how a child ended (negative: by that signal) without reaping it, None while it runs."""
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if facts is None:
        return None
    return facts.si_status if facts.si_code == os.CLD_EXITED else -facts.si_status


def python(module: str) -> list[str]:
    """Return the command that runs a module of ours; the current folder is not searched for others (-P)."""
    return [sys.executable, "-P", "-m", module]


def require_interpreter() -> None:
    """Raise OSError where the interpreter that we run on is gone."""
    if not os.access(sys.executable, os.X_OK):
        raise FileNotFoundError(2, "the Python interpreter is gone", sys.executable)


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that a trainer gets."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in LEFT_OUT and not name.startswith(LEFT_OUT_PREFIXES)
    }
    return {**kept, **ADDED}


def launch_error(error: OSError, *, what: str) -> LaunchError:
    """Return the user's words for a process that could not be started."""
    import errno

    name = errno.errorcode.get(error.errno or 0, "")
    why = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return LaunchError(
        f"{what} cannot be started now",
        found=f"{why} ({name})" if name else why,
        expected="a new process",
        fix=_FIXES.get(name, "see logs/daemon.log; it is tried again by itself"),
        code=name or None,
    )


_FIXES = {
    "EAGAIN": "too many processes for this user: end some, or raise ulimit -u; it is tried again by itself",
    "ENOMEM": "no memory for a new process: free some; it is tried again by itself",
    "EMFILE": "too many open files: raise ulimit -n; it is tried again by itself",
    "ENFILE": "too many open files on this machine; it is tried again by itself",
    "ENOENT": "install Overnight's Python environment again; it is tried again by itself",
}
