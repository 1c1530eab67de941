"""What an attempt is given: the one argument of everything below fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from overnight.domain.attempt import Spec
from overnight.domain.config import Settings
from overnight.trainer.faults import Faults
from overnight.trainer.pulse import Pulse
from overnight.trainer.wishes import Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What an attempt is given."""

    spec: Spec
    settings: Settings
    folder: Path
    scratch: Path
    pulse: Pulse
    wishes: Wishes
    faults: Faults
    owns_model: Callable[[], bool]  # whether the lock on the model is still ours
    disk_wait_s: float = 0.0  # so long a save waits for the disk
