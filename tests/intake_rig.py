"""A workspace for intake, and the child process that crash tests kill: ``python intake_rig.py WORKSPACE``."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overnight import intake
from overnight.database import connection
from overnight.database.connection import Connection
from overnight.disk import claims
from overnight.disk.layout import Layout
from overnight.domain.config import Settings
from overnight.domain.job import Priority

GOOD = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}).encode()


def settings(**queue: Any) -> Settings:
    """Return settings of a model without a tokenizer at hand."""
    return Settings.model_validate({"model_name": "m", "base_model": "org/none", "queue": queue})


def make(root: Path) -> tuple[Layout, Connection]:
    """Make a workspace's folders and its database."""
    layout = Layout(root)
    for folder in layout.folders():
        folder.mkdir(parents=True, exist_ok=True)
    return layout, connection.connect(layout.database, create=True)


def take_everything(root: Path, *added: Path) -> None:
    """Claim each file of the inbox and a copy of each added one, and take each claim: what daemon and recovery do."""
    layout = Layout(root)
    opened = connection.connect(layout.database)
    for path in added:
        claims.claim_by_copy(layout, path, at=time.time(), priority=Priority.NORMAL)
    for path in sorted(layout.inbox.iterdir()):
        claims.claim_by_rename(layout, path, at=time.time())
    for taken in intake.take_all(layout, opened, settings(), now=time.time):
        if taken.error is not None:
            raise taken.error
    opened.close()


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = tuple(
        (f"{name}{half}", ctypes.c_uint32) for half in (0, 1) for name in ("effective", "permitted", "inherited")
    )


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Let the modes of files count for this thread also where it is root's: without the right to pass over them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before, bound = _CapabilityHeader(0x20080522, 0), _CapabilitySets(), _CapabilitySets()
    for sets in (before, bound):
        assert libc.capget(ctypes.byref(header), ctypes.byref(sets)) == 0
    bound.effective0 &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), ctypes.byref(bound)) == 0
    try:
        yield
    finally:
        assert libc.capset(ctypes.byref(header), ctypes.byref(before)) == 0


if __name__ == "__main__":
    take_everything(*map(Path, sys.argv[1:]))
