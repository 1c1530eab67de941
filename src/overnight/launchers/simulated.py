"""Simulated trainers: real processes that keep the trainer's word in every file, and do cheap arithmetic.

For tests of the guards and for a look at the daemon without torch. Chosen by OVERNIGHT_SIMULATED (see choice.py).
"""

from __future__ import annotations

from overnight.launchers.local import Local


class Simulated(Local):
    """Starts ``python -m overnight.trainer.simulated ATTEMPT``."""

    module = "overnight.trainer.simulated"
    prefix = "simulated"
