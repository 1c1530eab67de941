"""Inbox file -> claim: what has settled and nobody writes is renamed away, in order of arrival.

Judging claimed files is the work of a process of its own (admission.py): it may take long, it needs memory, and what is
in them must not harm the loop. What cannot be taken stays where it is, is never opened, and is told once.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field

from overnight.daemon import judging
from overnight.daemon.context import Context, Moment
from overnight.disk import claims
from overnight.disk import inbox as inbox_rules
from overnight.disk.writers import is_open_for_writing
from overnight.domain.errors import DiskError
from overnight.domain.printable import shown

BUDGET_S = 0.1
"""What one tick spends on the inbox at most: ten thousand files must not blind the loop."""

Looks = tuple[int, int, int, int]


@dataclass(slots=True)
class Seen:
    """One name in the inbox."""

    looks: Looks
    since: float  # boot seconds: it has looked like this from then on
    settled: int | None = None  # number of the look in which it was first seen settled


@dataclass(slots=True)
class Inbox:
    """What the loop remembers of the inbox."""

    seen: dict[str, Seen] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # name -> why; told once
    line: list[str] = field(default_factory=list)  # settled names, in order of arrival
    look: int = 0
    next_look: float = 0.0  # boot seconds


def take_settled(context: Context, now: Moment) -> None:
    """Claim what has settled, then see that claimed files are judged."""
    inbox: Inbox = context.memory.setdefault("inbox", Inbox())
    deadline = time.monotonic() + BUDGET_S
    if not inbox.line and now.boot >= inbox.next_look:
        _look(context, inbox, now)
    while inbox.line and time.monotonic() < deadline:
        _claim(context, inbox, inbox.line.pop(0), now)
    judging.judge_claimed(context, now)


def _look(context: Context, inbox: Inbox, now: Moment) -> None:
    """Look at every name once; line up those that have settled."""
    settings = context.limits.queue
    inbox.look += 1
    try:
        entries = list(os.scandir(context.layout.inbox))
    except OSError as error:
        inbox.next_look = now.boot + settings.poll_interval_s
        message = f"the inbox cannot be read: {error.strerror or error}"
        context.tell("inbox", message, kind="inbox.unreadable", level="error", at=now.unix)
        return
    context.forget("inbox")
    names: set[str] = set()
    for entry in entries:
        if inbox_rules.is_left_alone(entry.name):
            continue
        names.add(entry.name)
        _consider(context, inbox, entry, now, settle_s=settings.settle_s)
    for gone in [name for name in inbox.seen if name not in names]:
        del inbox.seen[gone]
    for gone in [name for name in inbox.refused if name not in names]:
        del inbox.refused[gone]
    settled = [(seen.settled, name) for name, seen in inbox.seen.items() if seen.settled is not None]
    inbox.line = [name for _, name in sorted(settled)]
    waits = len(inbox.seen) > len(settled)
    inbox.next_look = now.boot + (
        min(settings.poll_interval_s, settings.settle_s) if waits else settings.poll_interval_s
    )


def _consider(context: Context, inbox: Inbox, entry: os.DirEntry[str], now: Moment, *, settle_s: float) -> None:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return  # it vanished: the next look will say so
    why = inbox_rules.why_not_taken(entry.name, facts.st_mode)
    if why is not None:
        inbox.seen.pop(entry.name, None)
        _refuse(context, inbox, entry.name, why, now)
        return
    looks = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    seen = inbox.seen.get(entry.name)
    if seen is None or seen.looks != looks:
        seen = inbox.seen[entry.name] = Seen(looks=looks, since=now.boot)
    if seen.settled is None and now.boot - seen.since >= settle_s:
        seen.settled = inbox.look


def _refuse(context: Context, inbox: Inbox, name: str, why: str, now: Moment) -> None:
    """Tell once, in the history and beside the rejected files, why something is not taken."""
    if inbox.refused.get(name) == why:
        return
    inbox.refused[name] = why
    message = f"{shown(name)} in the inbox is not taken: {why}"
    if judging.report_not_taken(context.layout, name, message, at=now.unix):
        context.record(message, kind="inbox.not_taken", level="warning", at=now.unix, file=shown(name))


def _claim(context: Context, inbox: Inbox, name: str, now: Moment) -> None:
    """Take one settled file, unless it changed in the last moment or somebody writes it."""
    path = context.layout.inbox / name
    seen = inbox.seen.get(name)
    try:
        facts = os.lstat(path)
        if seen is None or seen.looks != (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns):
            return  # the next look begins to watch it anew
        if is_open_for_writing(path):
            return
        claims.claim_by_rename(context.layout, path, at=now.unix)
    except FileNotFoundError:
        context.record(
            f"{shown(name)} vanished from the inbox before it was taken", kind="inbox.vanished", level="warning",
            at=now.unix,
        )  # fmt: skip
    except (OSError, DiskError) as error:
        why = f"{shown(name)} cannot be taken yet, it is tried again: {_why(error)}"
        context.tell(f"inbox {name}", why, kind="inbox.waiting", level="warning", at=now.unix)
        return
    inbox.seen.pop(name, None)
    inbox.refused.pop(name, None)
    context.forget(f"inbox {name}")


def _why(error: OSError | DiskError) -> str:
    if isinstance(error, DiskError):
        return error.found or error.what
    if error.errno == errno.EXDEV:
        return (
            "inbox/ lies on another file system than .overnight/, and is taken by renaming, so that a file is never in"
            " two places: put inbox/ back onto the disk of the workspace, or use overnight add"
        )
    return error.strerror or str(error)
