"""Whose a workspace is where machines share a disk: its daemon's lease, renewed while it works.

On one machine the kernel's lock says all: a lock that is free there wins at once, whatever the lease says. A share may
keep no locks between machines, and SQLite's log is not for two of them: there the lease is what keeps the others out.
"""

from __future__ import annotations

from dataclasses import dataclass

RENEW_S = 10.0
LIMIT_S = 300.0
"""A lease that was not renewed for so long has run out. A trainer that nobody watches has saved and left by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine, as it names itself."""

    name: str
    machine: str  # the installation's id; "" where it has none
    boot: str  # the id of this boot; "" where the system tells none

    def is_same_as(self, other: Host) -> bool:
        """Return whether it is the same kernel, or the same machine in another boot."""
        if self.boot and self.boot == other.boot:
            return True
        return (self.name, self.machine) == (other.name, other.machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the daemon of a workspace says of where it works."""

    host: Host
    pid: int
    since: float  # unix seconds


def foreign(lease: Lease | None, *, here: Host, age_s: float) -> str | None:
    """Return why another machine's daemon still has the workspace, None where none has.

    ``age_s`` is measured by the disk's own clock. One that lies far ahead was not renewed since that clock was set.
    """
    if lease is None or lease.host.is_same_as(here) or abs(age_s) >= LIMIT_S:
        return None
    return f"pid {lease.pid} on {lease.host.name}, which renewed its lease {max(0.0, age_s):.0f} s ago"
