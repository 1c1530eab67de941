"""Who holds a workspace, in words: as its lock tells, and where that one is gone, who keeps the lock in its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError
from overnight.domain.picture import iso
from overnight.launchers import processes


def held(layout: Layout, told: Mapping[str, object]) -> BusyError:
    """Return the refusal of a start beside another daemon, which names who is there."""
    keepers = keeping(told, layout.daemon_lock, layout.state, layout.watchdog_lock)
    return BusyError(
        f"Another daemon holds {layout.root}",
        found=keepers or introduced(told),
        expected="no daemon on this workspace",
        fix="end that process; the next start takes over as soon as it is gone"
        if keepers
        else "overnight status --watch shows it; overnight down ends it",
        code="held",
    )


def introduced(told: Mapping[str, object]) -> str:
    """Return who holds a lock, as its text tells."""
    since = told.get("since")
    when = iso(since) if isinstance(since, int | float) else since
    return f"pid {told.get('pid', 'unknown')} on {told.get('host', 'this host')} since {when or 'an unknown time'}"


def keeping(told: Mapping[str, object], *places: Path) -> str | None:
    """Return who keeps a lock that was taken by somebody who is gone, or by nobody known.

    None where the text names a living process or one of another machine, or where nobody else is to be seen.
    """
    if told.get("host", os.uname().nodename) != os.uname().nodename or processes.identity_of(told) is not None:
        return None
    for place in places:
        keepers = processes.keepers_of_lock(place)
        if keepers:
            names = ", ".join(f"pid {keeper.pid} ({processes.name_of(keeper)})" for keeper in keepers[:3])
            left = f", left behind by pid {told['pid']}, which is gone" if "pid" in told else ""
            return f"{names} keeps the lock on {place.name}{left}"
    return None


def holder_of_model(layout: Layout) -> str | None:
    """Return in words who holds the model's lock, None where nobody does."""
    told = files.lock_holder(layout.model_lock)
    if told is None:
        return None
    return (
        keeping(told, layout.model_lock) or f"another trainer (pid {told.get('pid', 'unknown')}) still holds the model"
    )
