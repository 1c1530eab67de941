"""What somebody does in the folders, also between two loops: noticed, and told once by name. It harms no run.

What Overnight itself moves, sets aside or removes is not told here: a file that was moved is found by its inode, and
what was removed by a plan stands in the history by its name.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import Any

from overnight.daemon.cleanup import REMOVED
from overnight.daemon.context import Context, Moment
from overnight.database import events, overview
from overnight.disk import last_sight, sightings
from overnight.disk.last_sight import Kept
from overnight.disk.sealed import LOADABLE
from overnight.domain.checkpoint import checkpoint_name, step_of
from overnight.domain.errors import DiskError
from overnight.domain.printable import shown
from overnight.domain.sightings import (
    Change,
    Deed,
    Looks,
    Sight,
    changes_inside,
    changes_of_files,
    in_words,
    names_of,
    recognised,
    verb_of,
)
from overnight.removal import PIN

EVERY_S = 2.0
COST_SHARE = 200
"""Between two looks stays so many times what one takes: many files must not blind the loop."""

KEEP_EVERY_S = 10.0
"""So often a look is written down for the next loop; at once where something was told."""

MOST_EVENTS = 10_000
"""Where more happened since the last look, nobody can tell what of it was ours."""

OURS = (
    "checkpoint.removed", "checkpoint.set_aside", "trash.removed", "backup.restored", "version.published",
    "version.rolled_back", "version.deleted",
)  # fmt: skip
"""Kinds of events that name what we removed or replaced ourselves."""

NOT_SEEN: Looks = (0, 0, 0, 0)
"""Of a checkpoint of which only the history tells: no file has these."""

HARMLESS = {
    "queue/waiting": "queue/ is only a view: the job trains from its own copy",
    "queue/processing": "queue/ is only a view: the job trains from its own copy",
    "done": "what was trained is kept in the store; nothing needs that file",
    "failed": "its job and the reason stay in the history",
    "rejected": "the reason stays in the history",
}


def notice_changes(context: Context, now: Moment) -> None:
    """Look at the folders now and then; tell what somebody did there."""
    if context.lost_at is not None or now.boot < context.memory.get("notice_at", 0.0):
        return
    began = time.thread_time()
    try:
        _tell_in_the_way(context, now)
        _look(context, now)
    finally:
        cost_s = time.thread_time() - began
        context.memory["notice_at"] = now.boot + max(EVERY_S, COST_SHARE * cost_s)


def look_last(context: Context, now: Moment) -> None:
    """Look once more before the loop ends: the next one compares with that."""
    if context.lost_at is None:
        context.memory["sight_keep_at"] = 0.0
        _look(context, now)


def _look(context: Context, now: Moment) -> None:
    after = _sight(context)
    before: Sight | None = context.memory.get("sight") or _of_last_loop(context, after)
    context.memory["sight"] = after
    if before is not None:
        _compare(context, before, after, now)
    _keep(context, after, now)


def _compare(context: Context, before: Sight, after: Sight, now: Moment) -> None:
    kinds = (*OURS, "checkpoint.committed", "checkpoint.lost")
    happened = events.of_kinds_after(context.connection, kinds, before.event, limit=MOST_EVENTS)
    if len(happened) == MOST_EVENTS:
        return
    for (folder, _), words in in_words(_shown(changes_of_files(before.people, after.people))).items():
        level = "warning" if folder.startswith("queue/") else "info"
        context.record(f"{words}: {HARMLESS[folder]}", kind="folder.changed", level=level, at=now.unix)
    named = [str(one["message"]) for one in happened if one["kind"] in OURS]
    named += context.memory.get(REMOVED, [])  # of a full disk the history knows nothing
    _add_unseen(before, happened)
    _tell_changed(context, before, after, named, now)
    _tell_gone(context, before, after, named, now)
    if after.unsure:
        after.event = before.event
    else:
        context.memory.pop(REMOVED, None)


def _sight(context: Context) -> Sight:
    newest = overview.newest_event(context.connection)  # first: what is done meanwhile is named by a later one
    layout = context.layout
    return Sight(
        people=sightings.of_people(layout), checkpoints=sightings.of_checkpoints(layout),
        versions=sightings.of_versions(layout), event=newest,
    )  # fmt: skip


def _of_last_loop(context: Context, now_seen: Sight) -> Sight | None:
    """Return the last look of the loop before this one, None where there is none that can be compared."""
    kept = last_sight.read(context.layout)
    if kept is None or events.time_of(context.connection, kept.sight.event) != kept.event_at:
        return None  # or the database was made anew, or an older one was put back
    return recognised(kept.sight, now_seen)


def _keep(context: Context, sight: Sight, now: Moment) -> None:
    """Write a look down for the next loop, where it differs from what is written."""
    written: Sight | None = context.memory.get("sight_kept")
    if written is not None and _is_same(written, sight):
        return
    has_told = overview.newest_event(context.connection) != sight.event
    if now.boot < context.memory.get("sight_keep_at", 0.0) and not has_told:
        return
    context.memory["sight_keep_at"] = now.boot + KEEP_EVERY_S
    with contextlib.suppress(OSError, DiskError):  # a full disk is told elsewhere; the older look stays
        last_sight.keep(context.layout, Kept(sight, events.time_of(context.connection, sight.event)))
        context.memory["sight_kept"] = sight


def _is_same(one: Sight, other: Sight) -> bool:
    return (one.people, one.checkpoints, one.versions, one.unsure) == (
        other.people, other.checkpoints, other.versions, other.unsure
    )  # fmt: skip


def _add_unseen(before: Sight, happened: list[dict[str, Any]]) -> None:
    """Add the checkpoints that came after the look: one may go between two looks, and was there all the same."""
    unseen: dict[str, dict[str, Looks]] = {}
    for event in happened:
        if event["kind"] in ("version.published", "version.rolled_back"):
            unseen.clear()  # they made way for another version
        step = event["data"].get("step")
        if event["kind"] == "checkpoint.committed" and isinstance(step, int):
            unseen[checkpoint_name(step)] = {"": NOT_SEEN}
        if event["kind"] == "checkpoint.lost":
            unseen = {name: looks for name, looks in unseen.items() if name not in event["data"].get("checkpoints", [])}
    before.checkpoints = unseen | before.checkpoints


def _shown(changes: list[Change]) -> list[Change]:
    return [Change(folder=one.folder, deed=one.deed, name=shown(one.name)) for one in changes]


def _tell_changed(context: Context, before: Sight, after: Sight, named: list[str], now: Moment) -> None:
    """Tell of checkpoints whose files are no longer those that were committed."""
    ours = sightings.set_aside(context.layout)
    for name, files in before.checkpoints.items():
        there = after.checkpoints.get(name)
        if there is None or files[""] == NOT_SEEN:
            continue
        if there[""] == files[""]:
            old = {inside: looks for inside, looks in files.items() if inside != PIN}  # it may be taken away again
            done = in_words(changes_inside(f"current_model/{name}", old, there, matters=LOADABLE))
            told = [
                f"{words}: it is read to the last byte before anything starts from it, and set aside if it is damaged"
                for words in done.values()
            ]
        elif _is_ours(name, files[""], ours, named):
            continue
        else:
            told = [f"current_model/{name} was replaced by somebody: it is judged by its content before it is used"]
        for message in told:
            context.record(message, kind="checkpoint.changed", level="warning", at=now.unix, checkpoint=name)


def _tell_gone(context: Context, before: Sight, after: Sight, named: list[str], now: Moment) -> None:
    """Tell of checkpoints and versions that are gone, once two looks have found no word of it in the history."""
    ours = sightings.set_aside(context.layout)
    is_any_left = any(name in after.checkpoints for name, files in before.checkpoints.items() if files[""] != NOT_SEEN)
    kept_aside = sightings.names_kept_aside(context.layout)
    gone = {
        name: is_any_left
        for name, files in before.checkpoints.items()
        if name not in after.checkpoints
        and not _is_ours(name, files[""], ours, named)
        and not (files[""] == NOT_SEEN and name in kept_aside)
    }
    gone |= {
        name: True for name, looks in before.versions.items() if name not in after.versions and looks[:2] not in ours
    }
    sure = {name: was_left for name, was_left in before.unsure.items() if not _is_named(name, named)}
    after.unsure = {name: was_left for name, was_left in gone.items() if name not in sure}
    lost = sorted(name for name in sure if step_of(name) is not None and name not in after.checkpoints)
    if lost:
        _tell_lost(context, lost, is_any_left=any(sure[name] for name in lost), after=after, now=now)
    versions = [name for name in sure if step_of(name) is None and name not in after.versions]
    for words in in_words([Change(folder="models", deed=Deed.REMOVED, name=shown(name)) for name in versions]).values():
        context.record(words, kind="version.lost", level="error", at=now.unix, versions=versions)


def _is_ours(name: str, folder: Looks, ours: set[tuple[int, int]], named: list[str]) -> bool:
    """Return whether we set it aside or removed it ourselves: it lies there, or the history names it."""
    return folder[:2] in ours or _is_named(name, named)


def _is_named(name: str, messages: list[str]) -> bool:
    word = re.compile(rf"\b{re.escape(name)}\b")  # checkpoint-5 is not checkpoint-50
    return any(word.search(message) for message in messages)


def _tell_lost(context: Context, lost: list[str], *, is_any_left: bool, after: Sight, now: Moment) -> None:
    words = f"{names_of('current_model', lost)} {verb_of(Deed.REMOVED, len(lost))}"
    if is_any_left:
        context.record(words, kind="checkpoint.lost", level="warning", at=now.unix, checkpoints=lost)
        return
    if after.checkpoints:
        then = f"the trainer has saved {', '.join(sorted(after.checkpoints))} at once, and goes on"
    elif context.watched is not None:
        then = "the trainer saves a new one at its next step, and goes on"
    else:
        then = "nothing is started from the base model for that; put one back, from a backup or .overnight/trash"
    message = f"CRITICAL: {words}, and no other checkpoint was there: {then}"
    context.record(message, kind="checkpoint.lost", level="error", at=now.unix, checkpoints=lost)


def _tell_in_the_way(context: Context, now: Moment) -> None:
    for path in sightings.in_the_way(context.layout):
        place = Path(path)
        message = (
            f"something was in the place of {place.with_name(place.name.partition('.in-the-way-')[0])}: it made way,"
            f" and lies as {shown(path)}; remove it when you have looked at it"
        )
        context.tell(f"in the way {path}", message, kind="folder.in_the_way", at=now.unix)
