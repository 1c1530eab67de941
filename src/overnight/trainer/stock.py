"""Whether the model still has a checkpoint to fall back to: where somebody removed all of them, a new one is due."""

from __future__ import annotations

import os
import time
from pathlib import Path

from overnight.disk import checkpoints

LOOK_EVERY_S = 1.0
"""Between two looks into the checkpoints themselves; whether one came or went is seen at each step."""


class Stock:
    """What lies in a model's folder, asked for at each step border: cheap, unless something changed."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._looks: tuple[int, int] | None = None
        self._next_look = 0.0

    def is_lost(self, *, had: bool) -> bool:
        """Return whether no complete checkpoint is left, though there was one: saved or started from."""
        if not had:
            return False
        looks = self._folder_looks()
        if looks is not None and looks == self._looks and time.monotonic() < self._next_look:
            return False
        if checkpoints.newest_complete(self.model) is None:
            self._looks = None
            return True
        self._looks, self._next_look = looks, time.monotonic() + LOOK_EVERY_S
        return False

    def _folder_looks(self) -> tuple[int, int] | None:
        try:
            facts = os.stat(self.model)
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns
