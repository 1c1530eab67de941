"""Another version is put in use: what is there now is kept first, and comes back as it was.

- A version that was left by a rollback comes back as it was left, with what was trained on it since it was published.
- Any other comes back as it was published: what was trained on it is part of the version that was made from it.
- The base model of the workspace, before the first version, comes back with the checkpoints from which that was made.
- The version in use itself: what was trained on it since is put aside; where nothing was, it is brought back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.database.connection import Connection
from overnight.disk import checkpoints, files, locked, transition, versions
from overnight.disk.layout import Layout
from overnight.disk.transition import Transition
from overnight.domain.checkpoint import Verdict, step_of
from overnight.domain.errors import FailedError, UsageError
from overnight.domain.version import BASE, Version, VersionState, unknown
from overnight.publishing import merging, place, settling
from overnight.publishing.border import at_border
from overnight.publishing.grounds import half_trained

WHAT = "another version is put in use"
FIX = "wait for its end, or overnight pause, then try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The version that is to be in use, and with what."""

    version: Version | None  # None: the base model of the workspace
    restore: str | None  # folder of the history
    coming: list[str]
    like: dict[str, Any]  # as it was saved when it was left, or what comes closest; may be empty


def roll_back(layout: Layout, connection: Connection, *, to: str | None, now: float) -> Transition:
    """Put another version in use, by default the one before; return what was done.

    Raises BusyError while something trains, UsageError where there is no such version, FailedError where it is not
    whole: nothing is changed then.
    """
    with at_border(layout, connection, what=WHAT, fix=FIX, now=now):
        merging.end_leftover(layout)
        versions.remove_staging(layout)
        here = place.find(layout, connection)
        target = _target(layout, here) if to is None else to
        known = versions.identities(layout)
        if target != BASE and target not in known:
            raise unknown(target, [BASE, *known])
        goal = _goal(layout, here, None if target == BASE else target)
        plan = _plan(layout, connection, here, goal, now=now)
        settling.commit(layout, connection, plan)
    return plan


def _target(layout: Layout, here: place.Place) -> str:
    """Return the version before the one in use. Raises UsageError where there is none before."""
    if here.version is None:
        raise UsageError(
            "There is no version before this one",
            found="the base model of the workspace is in use",
            expected="a version in use",
            fix="overnight versions lists them; overnight versions rollback V puts V in use",
            code="no_version_before",
        )
    return _read(layout, here.version).parent or BASE


def _goal(layout: Layout, here: place.Place, identity: str | None) -> Goal:
    version = _require_whole(layout, identity) if identity is not None else None
    is_same = identity == here.version
    kept = place.kept(layout, identity)
    if kept is not None and not (is_same and here.checkpoints):
        return _with(layout, version, kept)
    if identity is None:
        if is_same:
            raise _nothing_to_do(here)
        return _with(layout, None, place.made_from(_first_version(layout, here.version)))
    if is_same and not here.checkpoints:
        raise _nothing_to_do(here)
    return Goal(version=version, restore=None, coming=[], like=_like(layout, identity))


def _nothing_to_do(here: place.Place) -> UsageError:
    return UsageError(
        f"{here.name} is in use already",
        found="nothing was trained on it that could be put aside, and nothing is kept that could come back"
        if not here.checkpoints
        else "the base model of the workspace has nothing before it",
        expected="another version",
        fix="overnight versions lists them",
        code="in_use",
    )


def _with(layout: Layout, version: Version | None, folder: str) -> Goal:
    """Return the goal of a version as it was left; every checkpoint that comes is read first. Raises FailedError."""
    names = transition.checkpoint_names(layout.history / folder)
    if version is None and not names:
        raise FailedError(
            "The checkpoints of the base model are gone",
            found=f"nothing in {layout.history / folder}",
            expected="the checkpoints from which the first version was made",
            fix="put them back from a copy; nothing was changed",
            code="no_checkpoint",
        )
    if names:
        newest = checkpoints.verify(layout.history / folder / names[0])
        if newest.verdict is not Verdict.VERIFIED:
            raise FailedError(
                f"{names[0]} cannot come back: it {newest.told}",
                found=newest.reason,
                expected="a checkpoint as it was when it was put aside",
                fix=f"put it back from a copy into {layout.history / folder}; nothing was changed",
                code=newest.verdict.value,
            )
    return Goal(version=version, restore=folder, coming=names, like=place.saved_state(layout, folder))


def _first_version(layout: Layout, identity: str | None) -> str:
    """Return the version without a parent from which one comes. Raises FailedError where a link is missing."""
    seen: list[str] = []
    while identity is not None and identity not in seen:
        seen.append(identity)
        identity = _read(layout, identity).parent
    return seen[-1]


def _like(layout: Layout, identity: str) -> dict[str, Any]:
    """Return what was saved when a version was left for one that was made from it: its config.json above all."""
    for child in versions.children(layout, identity):
        saved = place.saved_state(layout, place.made_from(child))
        if saved.get("version") == identity:
            return saved
    return {}


def _require_whole(layout: Layout, identity: str) -> Version:
    """Return a version that was read to the last byte. Raises FailedError where it is not what was published."""
    report = versions.verify(layout.versions / identity)
    if report.state is not VersionState.OK or report.version is None:
        raise FailedError(
            f"{identity} is {report.state.value} and is not put in use; nothing was changed",
            found=report.reason,
            expected="every file as it was published",
            fix="put it back from a copy; overnight versions verify tells more",
            code=report.state.value,
        )
    return report.version


def _read(layout: Layout, identity: str) -> Version:
    try:
        return versions.read(layout.versions / identity)
    except (OSError, ValueError) as error:
        raise FailedError(
            f"Nobody can tell what came before {identity}",
            found=str(error),
            expected="its manifest",
            fix="name the version: overnight versions rollback V",
            code="incomplete",
        ) from error


def _plan(layout: Layout, connection: Connection, here: place.Place, goal: Goal, *, now: float) -> Transition:
    name = goal.version.id if goal.version is not None else None
    newest = step_of(goal.coming[0]) if goal.coming else None
    step = newest if newest is not None else goal.version.step if goal.version is not None else 0
    values, lock = _locked(layout, goal)
    with_what = f"with {goal.coming[0]}" if goal.coming else "as it was published"
    left = half_trained(layout, connection)
    aside = f"; {here.name} is kept as it was left" + (f", where {left}" if left else "")
    return Transition(
        id=files.token(),
        kind="rolled_back",
        version=name,
        before=here.version,
        at=now,
        staging=None,
        save=place.keep_name(layout, here.version),
        leaving=here.checkpoints,
        restore=goal.restore,
        coming=goal.coming,
        saved=place.to_save(layout, here, step=_step_here(layout, here), at=now),
        config=place.config_with(layout, values, like=goal.like.get("config")),
        config_lock=lock,
        step=step,
        checkpoint=newest,
        jobs=list(goal.like.get("jobs") or []) if goal.restore is not None else [],
        message=f"{name or 'the base model'} is in use again, {with_what}, at step {step}{aside}",
    )


def _step_here(layout: Layout, here: place.Place) -> int:
    newest = step_of(here.checkpoints[0]) if here.checkpoints else None
    return newest if newest is not None else (locked.read(layout).step or 0)


def _locked(layout: Layout, goal: Goal) -> tuple[dict[str, Any], str | None]:
    """Return the locked settings of the goal, and the text of the lock's file."""
    if goal.coming and goal.restore is not None:
        values = dict(checkpoints.read_manifest(Path(layout.history, goal.restore, goal.coming[0])).locked)
        return values, goal.like.get("config_lock")
    assert goal.version is not None  # the base model comes with checkpoints
    return dict(goal.version.locked), files.json_bytes(locked.of_version(goal.version)).decode("utf-8")
