"""Moments of a run, as they can be seen from outside: polled so tightly that a blow lands inside of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.watching import Watching
from chaos.workspace import Workspace

POLL_S = 0.0004
MEANWHILE_S = 0.05


@dataclass
class Moments:
    """Looks for one moment after another."""

    workspace: Workspace
    watching: Watching
    meanwhile: Callable[[], None]  # done now and then while a moment is waited for

    def wait_for(self, moment: str, *, patience_s: float) -> bool:
        """Wait until a moment has come; return whether it has."""
        if moment == "train":
            return True
        has_come = self._detector(moment)
        deadline = time.monotonic() + patience_s
        meanwhile_at = 0.0
        while not has_come():
            at = time.monotonic()
            if at > deadline:
                return False
            if at > meanwhile_at:
                self.meanwhile()
                meanwhile_at = at + MEANWHILE_S
            time.sleep(POLL_S)
        return True

    def _detector(self, moment: str) -> Callable[[], bool]:
        match moment:
            case "save":
                return self._is_saving
            case "load" | "evaluate":
                phase = {"load": "loading", "evaluate": "evaluating"}[moment]
                return lambda: self._phase() == phase
            case "launch":
                return self._is_launching
            case "exit":
                has_reported = self._reports()
                return lambda: self._phase() == "exiting" or has_reported()
            case "settle":
                return self._reports()
            case "retention":
                return self._removals()
            case "intake":
                folder = self.workspace.root / ".overnight" / "claimed"
                return lambda: any(not name.startswith(".") for name in os.listdir(folder))
        raise ValueError(moment)

    def _phase(self) -> str:
        attempt = self.watching.attempt()
        if not attempt or self.watching.is_reported(attempt):
            return ""
        beat = self.watching.heartbeat(attempt)
        return str(beat["phase"]) if beat is not None else ""

    def _is_saving(self) -> bool:
        if self._phase() == "saving":
            return True
        attempt = self.watching.attempt()
        output = self.workspace.root / ".overnight" / "attempts" / attempt / "output"
        return any(name.startswith("checkpoint-") for name in _names(output)) or any(
            name.startswith(".") for name in _names(self.workspace.root / "current_model")
        )

    def _is_launching(self) -> bool:
        folder = self.workspace.root / ".overnight" / "attempts" / self.watching.attempt()
        return not (folder / "heartbeat.json").exists() and not (folder / "report.json").exists()

    def _reports(self) -> Callable[[], bool]:
        """Detect a last word that was not there when the waiting began."""
        known = self.watching.attempt()
        if known and self.watching.is_reported(known):
            return lambda: self.watching.attempt() != known and self.watching.is_reported(self.watching.attempt())
        return lambda: self.watching.is_reported(self.watching.attempt())

    def _removals(self) -> Callable[[], bool]:
        """Detect a checkpoint that goes, or is about to: one more than are to stay."""
        folder = self.workspace.root / "current_model"
        keep = int(self.workspace.kind.settings["checkpoint.keep"])
        return lambda: any(n.startswith(".removing.") for n in _names(folder)) or len(_names(folder)) > keep


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
