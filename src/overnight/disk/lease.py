"""The lease on disk: .overnight/lease.json, renewed by the daemon, read by whoever opens the workspace elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from pathlib import Path

from overnight.disk import attempts, files
from overnight.disk.layout import Layout
from overnight.domain import lease as leases
from overnight.domain.errors import BusyError, DiskError
from overnight.domain.lease import Host, Lease

SCHEMA = 1


def here() -> Host:
    """Return the machine that we run on."""
    machine = ""
    with contextlib.suppress(OSError, ValueError):
        machine = Path("/etc/machine-id").read_text().strip()
    return Host(name=os.uname().nodename, machine=machine, boot=attempts.boot_id())


def write(layout: Layout, *, since: float) -> None:
    """Say that the workspace is ours, or that it still is. Raises DiskError."""
    lease = Lease(host=here(), pid=os.getpid(), since=since)
    files.write_json_atomically(layout.lease, {"schema": SCHEMA, **asdict(lease)})


def remove(layout: Layout) -> None:
    """Give it back, if it is ours."""
    lease = read(layout)
    if lease is not None and lease.pid == os.getpid() and lease.host.is_same_as(here()):
        with contextlib.suppress(OSError):  # it runs out by itself
            files.remove_file(layout.lease)


def read(layout: Layout) -> Lease | None:
    """Return whose the workspace is, None where nobody's or where nobody can tell."""
    try:
        value = files.read_json(layout.lease)
        host = value["host"]
        return Lease(
            host=Host(name=str(host["name"]), machine=str(host["machine"]), boot=str(host["boot"])),
            pid=int(value["pid"]),
            since=float(value["since"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def foreign(layout: Layout) -> str | None:
    """Return which other machine has the workspace now, None where none has."""
    lease = read(layout)
    if lease is None or lease.host.is_same_as(here()):
        return None
    try:
        return leases.foreign(lease, here=here(), age_s=_age_s(layout.lease))
    except FileNotFoundError:  # given back just now
        return None


def _age_s(path: Path) -> float:
    """Return how long ago a file was written, by the clock of the disk that it lies on: a share has its own.

    Where nothing can be written beside it, this machine's clock is asked. Raises FileNotFoundError where it is gone.
    """
    written = os.stat(path).st_mtime
    probe = path.with_name(f".{path.name}.{os.getpid()}.{files.token()}.tmp")
    try:
        files.write_atomically(probe, b"")
        return os.stat(probe).st_mtime - written
    except (OSError, DiskError):
        return time.time() - written
    finally:
        with contextlib.suppress(OSError):
            files.remove_file(probe)


def require_ours(layout: Layout) -> None:
    """Refuse to touch a workspace that another machine's daemon works on. Raises BusyError."""
    who = foreign(layout)
    if who is not None:
        raise BusyError(
            f"{layout.root} is at work on another machine",
            found=who,
            expected="one machine at a time: neither locks nor the database can be shared between two",
            fix=f"run the command there; a lease that is not renewed for {leases.LIMIT_S / 60:.0f} minutes has run out",
            code="other_host",
        )
