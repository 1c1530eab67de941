"""The verbs of versions: make one, list them, look at one, put another one in use, delete one."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from overnight.control.wishes import is_daemon_alive
from overnight.database import events, intents
from overnight.database.connection import transaction
from overnight.disk import files, locked, transition, versions
from overnight.disk.layout import Layout
from overnight.disk.transition import Transition
from overnight.domain.attempt import Heartbeat
from overnight.domain.errors import (
    BusyError,
    ConfigError,
    DiskError,
    ExitCode,
    FailedError,
    OvernightError,
)
from overnight.domain.version import MAKING, Version, VersionReport, as_description
from overnight.publishing import consolidating, deleting, rollback, settling
from overnight.publishing.deleting import Doomed

POLL_S = 0.1
_ERRORS: dict[int, type[OvernightError]] = {
    ExitCode.CANNOT_WRITE: DiskError, ExitCode.BAD_CONFIG: ConfigError, ExitCode.BUSY: BusyError,
}  # fmt: skip

Tell = Callable[[str], None]


def consolidate(layout: Layout, connection: sqlite3.Connection, *, description: str, tell: Tell, now: float) -> Version:
    """Make the model as it stands a version, now. Raises BusyError while something trains."""
    return consolidating.consolidate(
        layout, connection, description=description, now=now, tell=lambda beat: tell(_progress(beat))
    )


def consolidate_when_free(
    layout: Layout, connection: sqlite3.Connection, *, description: str, tell: Tell, now: float
) -> Version:
    """Wish for a version behind the current job, and wait until it is made.

    The wish survives whoever wished: the loop meets it, at the latest after its next start. Where no loop runs, it is
    met here. Raises what refused the version.
    """
    token = secrets.token_hex(8)
    _wish(layout, connection, as_description(description), token, now=now)
    said = refusal = ""
    while True:
        ended = _ended(connection, token)
        if ended is not None:
            return _result(layout, ended)
        if not is_daemon_alive(layout):
            try:
                return consolidating.consolidate(
                    layout, connection, description=description, now=time.time(), wish=token,
                    tell=lambda beat: tell(_progress(beat)),
                )  # fmt: skip
            except BusyError as error:  # an adopted trainer, or somebody else: the wish stands
                refusal = f"waiting, and no daemon runs: {error.found or error.what}"
            except OvernightError:
                _withdraw(connection, token)
                raise
        standing = _standing_words(layout) or refusal
        if standing and standing != said:
            said = standing
            tell(standing)
        time.sleep(POLL_S)


def listing(layout: Layout) -> list[VersionReport]:
    """Return every version, by number."""
    return versions.listing(layout, in_use=locked.version_in_use(layout))


def find(layout: Layout, identity: str) -> VersionReport:
    """Return one version, judged by its looks. Raises UsageError where there is none of that id."""
    return versions.judge_by_looks(versions.require(layout, identity))


def verify(layout: Layout, identity: str) -> VersionReport:
    """Return one version, read to the last byte. Raises UsageError where there is none of that id."""
    return versions.verify(versions.require(layout, identity))


def describe(layout: Layout, report: VersionReport) -> dict[str, Any]:
    """Return all that is known of a version."""
    import dataclasses

    told = dataclasses.asdict(report.version) if report.version is not None else {}
    told.pop("schema", None)
    return {
        **told,
        **versions.to_json(report),
        "in_use": report.id == locked.version_in_use(layout),
        "children": versions.children(layout, report.id),
    }


def roll_back(layout: Layout, connection: sqlite3.Connection, *, to: str | None, now: float) -> Transition:
    """Put another version in use; what is there now is kept."""
    return rollback.roll_back(layout, connection, to=to, now=now)


def plan_deletion(layout: Layout, identity: str) -> Doomed:
    """Say what would be deleted."""
    return deleting.plan(layout, identity)


def delete(layout: Layout, connection: sqlite3.Connection, identity: str, *, now: float) -> Doomed:
    """Move a version into the trash."""
    return deleting.delete(layout, connection, identity, now=now)


def _progress(beat: Heartbeat) -> str:
    return f"part {beat.part} of {beat.parts}" if beat.parts is not None else beat.phase.value


def _wish(layout: Layout, connection: sqlite3.Connection, description: str, token: str, *, now: float) -> None:
    with transaction(connection):
        standing = intents.standing(connection).get(settling.WISH)
        if standing is not None:
            raise BusyError(
                "A version is wished for already",
                found=f"{standing.value.get('description', '')!r:.100}",
                expected="one at a time",
                fix="wait until it is made: overnight versions lists it then",
                code="wished",
            )
        intents.wish(connection, settling.WISH, {"description": description, "token": token}, now=now)
        events.record(
            connection, now=now, kind="operator.consolidate", message="a version is wished for behind the current job"
        )


def _withdraw(connection: sqlite3.Connection, token: str) -> None:
    with transaction(connection):
        standing = intents.standing(connection).get(settling.WISH)
        if standing is not None and standing.value.get("token") == token:
            intents.withdraw(connection, settling.WISH)


def _ended(connection: sqlite3.Connection, token: str) -> dict[str, Any] | None:
    for kind in ("version.published", "version.failed"):
        event = events.newest_of(connection, kind)
        if event is not None and event["data"].get("wish") == token:
            return event
    return None


def _result(layout: Layout, event: dict[str, Any]) -> Version:
    data = event["data"]
    if event["kind"] == "version.published":
        return versions.read(layout.versions / str(data["version"]))
    kind = _ERRORS.get(int(data.get("exit_code") or 1), FailedError)
    raise kind(
        str(data.get("what") or event["message"]),
        found=data.get("found"),
        expected=data.get("expected"),
        fix=data.get("fix"),
        code=data.get("code") or "merge",
    )


def _standing_words(layout: Layout) -> str:
    holder = files.lock_holder(layout.checkpoints_lock)
    if holder is not None and holder.get("what") == MAKING:
        return str(holder["what"])
    if transition.read(layout) is not None:
        return "the version is put in use"
    trainer = files.lock_holder(layout.model_lock)
    return f"waiting: attempt {trainer.get('attempt')} is at work" if trainer is not None else ""
