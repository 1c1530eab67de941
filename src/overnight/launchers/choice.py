"""Which launcher serves a workspace."""

from __future__ import annotations

import os

from overnight.domain.errors import ConfigError
from overnight.launchers.base import Launcher
from overnight.launchers.local import Local
from overnight.launchers.simulated import Simulated

SIMULATED = "OVERNIGHT_SIMULATED"
"""Where this variable is set, trainers are simulated; its value holds their options (see trainer/simulated.py)."""


def launcher_of(kind: str) -> Launcher:
    """Return the launcher of a kind. Raises ConfigError where this version has none."""
    if SIMULATED in os.environ:
        return Simulated()
    if kind == "local":
        return Local()
    raise ConfigError(
        f"The launcher '{kind}' is not part of this version",
        found=kind,
        expected="local",
        fix="overnight config set launcher.kind local",
        code="value",
    )
