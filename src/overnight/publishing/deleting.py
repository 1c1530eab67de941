"""A version is deleted: into the trash, with the checkpoints that were its own; never one that is needed.

By one durable plan: killed in between, whoever comes next brings it to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overnight.database.connection import Connection
from overnight.disk import files, locked, transition, trash, versions
from overnight.disk.layout import Layout
from overnight.disk.transition import Deletion
from overnight.domain.errors import BusyError
from overnight.publishing import place, settling
from overnight.publishing.resting import at_rest

WHAT = "a version is deleted"
FIX = "wait for its end, or overnight pause, then try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A version that may be deleted, and what goes with it."""

    id: str
    paths: list[Path]
    bytes: int
    checkpoints: list[str]  # its own: those that it was made from, and what was trained on it and left by a rollback

    @property
    def words(self) -> str:
        """All that goes, for people."""
        return f"{self.id}, with {', '.join(self.checkpoints)} of its own," if self.checkpoints else self.id


def plan(layout: Layout, identity: str) -> Doomed:
    """Say what would go. Raises UsageError where there is no such version, BusyError where it is needed."""
    folder = versions.require(layout, identity)
    if identity == locked.version_in_use(layout):
        raise _needed(identity, "it is in use", "put another one in use first: overnight versions rollback")
    children = versions.children(layout, identity)
    if children:
        raise _needed(identity, f"it is the parent of {', '.join(children)}", "delete those first, or keep it")
    own = place.belongings(layout, identity)
    return Doomed(
        id=identity,
        paths=[folder, *own],
        bytes=sum(trash.tree_bytes(path) for path in [folder, *own]),
        checkpoints=[name for path in own for name in transition.checkpoint_names(path)],
    )


def delete(layout: Layout, connection: Connection, identity: str, *, now: float) -> Doomed:
    """Move a version into the trash; return what went. Raises as ``plan``, BusyError while something trains."""
    with at_rest(layout, connection, what=WHAT, fix=FIX, now=now):
        settling.settle(layout, connection)
        doomed = plan(layout, identity)
        message = f"{doomed.words} is deleted: it lies in the trash for a while ({doomed.bytes / 1e6:.1f} MB)"
        going = Deletion(
            id=files.token(), version=identity, at=now, freed_bytes=doomed.bytes, message=message,
            paths=[path.relative_to(layout.root).as_posix() for path in doomed.paths],
        )  # fmt: skip
        settling.commit(layout, connection, going)
    return doomed


def _needed(identity: str, why: str, fix: str) -> BusyError:
    return BusyError(
        f"{identity} cannot be deleted: {why}",
        found=why,
        expected="a version that nothing stands on",
        fix=fix,
        code="needed",
    )
