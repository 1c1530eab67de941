"""The health of the work: database, daemon, watchdog, heartbeat, orphans, queue against disk, the last crash."""

from __future__ import annotations

from collections.abc import Callable

from overnight.control.doctor.patient import Patient
from overnight.database import intents, overview, queue
from overnight.disk import attempts, files
from overnight.domain import diagnosis
from overnight.domain.attempt import Outcome
from overnight.domain.diagnosis import Check, Life, failed, passed, skipped, warned
from overnight.domain.errors import OvernightError
from overnight.domain.job import JobState
from overnight.domain.picture import age

BEAT_SLACK_S = 60.0
"""A heartbeat may be so much older than the longest limit of the guards: they act first."""


def look_at_database(patient: Patient) -> Check:
    """Can the queue be read, whole?"""
    try:
        with patient.connected() as connection:
            trouble = overview.damage_of(connection)
    except OvernightError as error:
        return failed("database", f"{error.what}: {error.found}", fix=error.fix or "restore it from a backup")
    if trouble is not None:
        fix = "overnight down, then overnight up: it is made anew from what lies in the workspace, where that is exact"
        return failed("database", f"it is damaged: {trouble}", fix=fix)
    return passed("database", "read from end to end")


def look_at_daemon(patient: Patient) -> Check:
    """Does the daemon do what it should?"""
    return diagnosis.judge_daemon(_life(patient))


def look_at_watchdog(patient: Patient) -> Check:
    """Does somebody look after the daemon?"""
    return diagnosis.judge_watchdog(_life(patient))


def look_at_heartbeat(patient: Patient) -> Check:
    """Does the trainer move?"""
    return diagnosis.judge_heartbeat(_life(patient))


def look_at_orphans(patient: Patient) -> Check:
    """Does anything work that nobody looks after?"""
    return diagnosis.judge_orphans(_life(patient))


def look_at_queue(patient: Patient) -> Check:
    """Are the rows of each waiting job on the disk?"""
    with patient.connected() as connection:
        jobs = queue.listing(connection, states=[JobState.QUEUED, JobState.RUNNING])
    if not jobs:
        return passed("queue", "nothing is queued")
    gone = [job for job in jobs if job.dataset and not patient.layout.rows(job.dataset).is_file()]
    if gone:
        told = ", ".join(f"{job.file} (job {job.id})" for job in gone[:3])
        return failed(
            "queue", f"the stored rows are gone: {told}", fix=f"overnight cancel {gone[0].id}, add the file again"
        )
    return passed("queue", f"{len(jobs)} waiting or running, the rows of each are there")


def look_at_last_crash(patient: Patient) -> Check:
    """How did the last attempt end?"""
    with patient.connected() as connection:
        last = overview.last_attempt(connection)
    if last is None:
        return skipped("last crash", "nothing was trained yet")
    if last.outcome not in (Outcome.CRASHED, Outcome.HUNG, Outcome.LOST):
        return passed("last crash", "the last attempt did not end badly")
    when = f", {age(patient.now - last.ended_at)} ago" if last.ended_at is not None else ""
    kind = last.kind.value if last.kind is not None else last.outcome.value
    return warned("last crash", f"attempt {last.id}: {kind}{when}", fix=f"overnight crashes show {last.id}")


def _life(patient: Patient) -> Life:
    """Gather who lives and who should, with or without a database."""
    layout = patient.layout
    daemon, watchdog = files.lock_holder(layout.daemon_lock), files.lock_holder(layout.watchdog_lock)
    trainer = files.lock_holder(layout.model_lock)
    try:
        with patient.connected() as connection:
            standing, opened = intents.standing(connection), queue.open_attempts(connection)
    except OvernightError:
        standing, opened = {}, []
    attempt = opened[-1] if opened else None
    beat = attempts.read_heartbeat(layout.attempt(attempt.id)) if attempt is not None else None
    longest_s = max(
        patient.number("watch", name, default)
        for name, default in (("stuck_s", 900.0), ("eval_stuck_s", 1800.0), ("load_stuck_s", 900.0))
    )
    return Life(
        should_run="up" in standing and "down" not in standing,
        daemon_pid=_pid(daemon),
        quiet_s=_quiet_s(patient) if daemon is not None else None,
        dead_s=patient.number("watch", "daemon_dead_s", 30.0),
        watchdog_pid=_pid(watchdog),
        trainer_pid=_pid(trainer),
        attempt=attempt.id if attempt is not None else None,
        beat_age_s=max(0.0, patient.now - beat.written_at) if beat is not None else None,
        beat_limit_s=longest_s + BEAT_SLACK_S,
        phase=beat.phase.value if beat is not None else "starting",
        paused=str(standing["paused"].value.get("reason")) if "paused" in standing else None,
    )


def _pid(holder: dict[str, object] | None) -> int | None:
    if holder is None:
        return None
    pid = holder.get("pid")
    return pid if isinstance(pid, int) else 0


def _quiet_s(patient: Patient) -> float | None:
    """Return for how long the daemon said nothing, by the clock that no operator sets."""
    try:
        value = files.read_json(patient.layout.daemon_state)
        if value["boot_id"] != attempts.boot_id():
            return None  # it has only begun in this boot
        return max(0.0, attempts.boot_time() - float(value["beat"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


LOOKS: tuple[tuple[str, Callable[[Patient], Check]], ...] = (
    ("database", look_at_database),
    ("daemon", look_at_daemon),
    ("watchdog", look_at_watchdog),
    ("heartbeat", look_at_heartbeat),
    ("orphans", look_at_orphans),
    ("queue", look_at_queue),
    ("last crash", look_at_last_crash),
)
