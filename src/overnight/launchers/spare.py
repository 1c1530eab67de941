"""The spare trainer, seen from the loop: started, listened to, ordered to fork, ended.

The other end, and the lines that are exchanged, stand in trainer/spare.py. Nothing here waits longer than HANDSHAKE_S:
a spare that is stopped, frozen, dead or wrong costs so much, once, and the trainer is started anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from overnight.domain.spare import State
from overnight.launchers import orphans, processes, program
from overnight.launchers.local import clean_environment, launch_error, python, require_interpreter
from overnight.launchers.processes import Identity

HANDSHAKE_S = 2.0
END_S = 1.0
"""How long a killed process is waited for; one that is frozen stays, and is looked at again."""

OPTIONS: dict[str, list[str]] = {"local": [], "simulated": ["--simulated"]}
"""What a spare is told, by the kind of trainer that it is to fork."""


class Places(Protocol):
    """What is needed of a workspace's layout."""

    @property
    def root(self) -> Path:
        """The workspace."""
        ...

    @property
    def spare_log(self) -> Path:
        """What the libraries print."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a trainer needs to have loaded: it can only be forked from a spare that was started for the very same."""

    kind: str  # of the trainer: "local", "simulated"
    threads: int
    base_model: str
    ground: str  # the fingerprint of the interpreter, its libraries, our own sources and the environment


class Spare:
    """One spare trainer, our child. Raises LaunchError where it cannot be started."""

    def __init__(self, places: Places, need: Need, *, gently: bool) -> None:
        self.need = need
        self.started_at = time.monotonic()
        self.state = State.LOADING
        self.why = ""
        self._heard = b""
        self._is_ending = False
        self._child = _start(places, need, gently=gently)
        self._identity = processes.identify(self._child.pid)
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._child.pid

    def descriptor(self) -> int | None:
        """Return what becomes readable when it has something to say."""
        stdout = self._child.stdout
        return stdout.fileno() if stdout is not None and self.state is State.LOADING else None

    def look(self) -> State:
        """Return how far it is. Never waits."""
        if self.state is State.LOADING and (answer := self._hear(until=0.0)) is not None:
            if answer == "ready":
                self.state = State.READY
            else:
                self._give_up(answer)
        if self.state is not State.OVER and self._child.poll() is not None:
            self._give_up(f"it ended with {self._child.returncode}")
        return self.state

    def fork(self, folder: Path, *, record: Callable[[str], None], prefix: str) -> str | None:
        """Have it fork the trainer of an attempt; return the handle, or None where the cold way is to be taken.

        ``record`` is called with the handle before the trainer is let go, as in Launcher.start; what it raises passes.
        None is only returned where nothing has run, and nothing will.
        """
        until = time.monotonic() + HANDSHAKE_S
        identity = self._ask_for_fork(folder, until=until)
        if identity is None:
            return None
        handle = f"{prefix}:{identity}"
        try:
            record(handle)
        except BaseException:
            self._say("no")
            orphans.reap(identity.pid, limit_s=END_S)
            raise
        with contextlib.suppress(OSError):
            if self._say("go") and self._hear(until=until, also=identity) == "running":
                return handle
        self._give_up("it did not let the trainer go")
        processes.kill_session(identity)
        orphans.reap(identity.pid, limit_s=END_S)
        return None

    def _ask_for_fork(self, folder: Path, *, until: float) -> Identity | None:
        """Return who waits at the gate now, or None after the spare was given up."""
        answer = "silence"
        try:
            if self.look() is not State.READY or not self._say(f"fork {json.dumps(str(folder))}"):
                return None
            answer = self._hear(until=until) or answer
            word, _, rest = answer.partition(" ")
            identity = processes.identify(int(rest)) if word == "forked" else None
        except (OSError, ValueError) as error:  # nobody can tell who it is, or it is no answer
            identity, answer = None, f"{answer} ({error})"
        if identity is None:
            self._give_up(f"asked to fork, it answered {answer}")
        return identity

    def end(self) -> bool:
        """End it and whatever waits at its gate; return whether it is gone. Only the first call waits for that."""
        patience_s = 0.0 if self._is_ending else END_S
        self.state, self._is_ending = State.OVER, True
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        until = time.monotonic() + patience_s
        while self._child.poll() is None:
            if self._identity is not None:
                processes.kill_session(self._identity)
            if time.monotonic() >= until:
                break
            time.sleep(0.005)
        return self._child.poll() is not None

    def _give_up(self, why: str) -> None:
        self.why = self.why or why
        self.end()

    def _say(self, order: str) -> bool:
        stdin = self._child.stdin
        if stdin is None or stdin.closed:
            return False
        try:
            stdin.write(f"{order}\n".encode())
        except OSError:
            self._give_up("it does not listen any more")
            return False
        return True

    def _hear(self, *, until: float, also: Identity | None = None) -> str | None:
        """Return its next line, or None where none comes in time, or ``also`` ends before."""
        stdout = self._child.stdout
        other = processes.open_process(also) if also is not None else None
        try:
            while b"\n" not in self._heard:
                if stdout is None or stdout.closed:
                    return None
                left_s = max(0.0, until - time.monotonic())
                ear = stdout.fileno()
                poll = select.poll()
                for descriptor in (ear, other):
                    if descriptor is not None:
                        poll.register(descriptor, select.POLLIN)
                if ear not in (descriptor for descriptor, _ in poll.poll(left_s * 1000)):
                    return None
                more = os.read(ear, 65536)
                if not more:
                    return None
                self._heard += more
        finally:
            if other is not None:
                os.close(other)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace")


def _start(places: Places, need: Need, *, gently: bool) -> subprocess.Popen[bytes]:
    command = [
        *python("overnight.trainer.spare"), str(places.root), "--threads", str(need.threads), "--base",
        need.base_model, *OPTIONS[need.kind], *(["--gently"] if gently else []), "--key", need.ground,
    ]  # fmt: skip
    try:
        require_interpreter()
        log = os.open(places.spare_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=places.root,
                env={
                    **clean_environment(dict(os.environ)),
                    "PWD": str(places.root),
                },  # as the shell of the gate sets it
                start_new_session=True,
                bufsize=0,
            )
        finally:
            os.close(log)
    except OSError as error:
        raise launch_error(error, what="The spare trainer") from error


def is_possible() -> bool:
    """Return whether this system can have one: the trainers that it forks must become our own children."""
    return sys.platform == "linux" and orphans.take_in()


def end_leftover(holder: dict[str, Any]) -> None:
    """Kill a spare that an earlier loop left, named as its lock names it.

    It ends by itself where it can; a stopped one cannot.
    """
    with contextlib.suppress(KeyError, ValueError):
        processes.kill_session(processes.parse_identity(str(holder["identity"])))


def ground() -> str:
    """Return the fingerprint of what is loaded: interpreter, installed libraries, our own sources, environment."""
    facts = [sys.executable, sys.version, *program.sources(), *_libraries()]
    facts += [f"{name}={value}" for name, value in sorted(clean_environment(dict(os.environ)).items())]
    return hashlib.blake2b("\n".join(facts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _libraries() -> list[str]:
    """Return the marks that package managers leave where something is installed, removed or replaced."""
    found: list[str] = []
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.name.endswith((".dist-info", ".egg-link", ".pth")):
                    found.append(f"{entry.path}:{program.looks_of(Path(entry.path))}")
    return sorted(found)
