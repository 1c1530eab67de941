"""The seam to whatever runs a trainer: start one, ask how it is, end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overnight.domain.errors import BusyError
from overnight.launchers.processes import Identity


class LaunchError(BusyError):
    """A process could not be started now; ``code`` is the system's name of the cause, such as EAGAIN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The trainer is there."""

    pid: int | None
    is_ours: bool  # False: it was started by an earlier daemon and adopted


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The trainer is gone; both are None where nothing can tell how (an adopted one)."""

    exit_code: int | None
    signal: int | None


class Launcher(Protocol):
    """Starts trainers and finds them again by a handle: a string that survives the daemon."""

    def start(self, folder: Path, *, workspace: Path, record: Callable[[str], None]) -> str:
        """Launch the trainer of an attempt folder; return its handle.

        ``record`` is called with the handle before the trainer is let go: one that nobody can find again never runs.
        Raises LaunchError.
        """
        ...

    def poll(self, handle: str) -> Running | Exited:
        """Return whether it is still there. Never waits."""
        ...

    def stop(self, handle: str) -> None:
        """Ask it to leave (the trainer alone gets the signal, also where it is stopped). No error where it is gone."""
        ...

    def kill(self, handle: str) -> None:
        """End it and everything that it started. No error where it is gone."""
        ...

    def process(self, handle: str) -> Identity | None:
        """Return which process of this machine it is, or None where it is none."""
        ...

    def wake(self, handle: str) -> None:
        """Let it go on where somebody stopped it. No error where it is gone."""
        ...

    def exit_descriptor(self, handle: str) -> int | None:
        """Return a file descriptor that becomes readable when it ends, or None where there is none."""
        ...
