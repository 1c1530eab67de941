"""Sabotage: nothing is synced any more, not by Python and not by SQLite. Only a power cut can show it."""

import os


def _nothing(*_):
    return None


os.fsync = os.fdatasync = _nothing
