"""Whether the next save will fit: asked before a launch and every few seconds, told before it is needed.

Counted in numbers, told in states: how many bytes are free changes with each line of a log, and is no news.
"""

from __future__ import annotations

from overnight.daemon.context import Context, Moment
from overnight.disk import checkpoints, needs
from overnight.domain.config import Settings
from overnight.domain.room import Need

LOOK_S = 2.0
ENOUGH, LOW, SHORT = "enough", "low", "short"
"""There is room for two saves or more; for one; for none."""


def hindrance(context: Context) -> str | None:
    """Return why no attempt is launched: what it would save does not fit. The first words stay while that is so."""
    why = needs.trouble(needs.places_of(context.layout), next_save(context))
    if why is None:
        context.memory.pop("no_room", None)
        return None
    said: str = context.memory.setdefault("no_room", why)
    return f"no room for a checkpoint: {said}; goes on by itself when there is"


def next_save(context: Context) -> Need | None:
    """Return what the next save takes: as the newest checkpoint, or, before the first, by the shapes of the base."""
    known = needs.of_newest(checkpoints.newest_complete(context.layout.model))
    if known is not None:
        return known
    limits = context.limits
    subject = (limits.base_model, limits.method, limits.lora)
    before: tuple[object, Need | None] | None = context.memory.get("first_save")
    if before is None or before[0] != subject:
        before = context.memory["first_save"] = (subject, needs.of_base(context.layout, limits))
    return before[1]


def watch_room(context: Context, now: Moment) -> None:
    """Warn while a job is at work or waits for room, before a save does not fit; say when there is room again."""
    if now.boot < context.memory.get("room_at", 0.0):
        return
    context.memory["room_at"] = now.boot + LOOK_S
    if context.watched is None and context.memory.get("room", ENOUGH) == ENOUGH:
        return
    need, places = next_save(context), needs.places_of(context.layout)
    why = needs.trouble(places, need)
    state, before = (SHORT if why is not None else ENOUGH), context.memory.get("room", ENOUGH)
    if why is None and need is not None:
        why = needs.trouble(places, need, saves=2)
        state = LOW if why is not None else ENOUGH
    context.memory["room"] = state
    if state == before:
        return
    if state == ENOUGH:
        context.record("there is room for the next saves again", kind="disk.enough", at=now.unix)
    elif state == LOW:
        message = f"the disk has room for one more save only: {why}; {_what_helps(context.limits)}"
        context.record(message, kind="disk.low", level="warning", at=now.unix)
    else:
        message = f"the next save does not fit, it will wait for room: {why}; {_what_helps(context.limits)}"
        context.record(message, kind="disk.short", level="error", at=now.unix)


def tell_wait(context: Context, attempt: str, waits: str, now: Moment) -> None:
    """Write into the history that an attempt waits for the disk, and that it goes on."""
    before: tuple[str, float] | None = context.memory.get("save_waits")
    if waits and before is None:
        context.memory["save_waits"] = (waits, now.boot)
        context.record(
            f"attempt {attempt}: {waits}; it goes on by itself", kind="disk.waiting", level="error", at=now.unix,
            attempt=attempt,
        )  # fmt: skip
    elif not waits and before is not None:
        del context.memory["save_waits"]
        waited_s = now.boot - before[1]
        message = f"attempt {attempt} has saved and goes on, after {waited_s:.0f} s of {before[0]}"
        context.record(message, kind="disk.goes_on", at=now.unix, attempt=attempt, waited_s=round(waited_s, 1))


def _what_helps(limits: Settings) -> str:
    keep = limits.checkpoint.keep
    lower = f", or lower checkpoint.keep (now {keep})" if keep > 1 else ""
    return f"free space{lower}"
