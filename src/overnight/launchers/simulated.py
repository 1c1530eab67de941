"""Simulated trainers: real processes that keep the trainer's word in every file, and do cheap arithmetic.

For tests of the guards and for a look at the daemon without torch. Chosen by OVERNIGHT_SIMULATED (see choice.py). With
``spare=1`` among its options they are forked from a spare, as real ones are.
"""

from __future__ import annotations

import os

from overnight.launchers.local import Local


class Simulated(Local):
    """Starts ``python -m overnight.trainer.simulated ATTEMPT``."""

    module = "overnight.trainer.simulated"
    prefix = "simulated"

    def takes_forks(self) -> bool:
        """Return whether the options ask for a spare."""
        return "spare=1" in os.environ.get("OVERNIGHT_SIMULATED", "").split(",")
