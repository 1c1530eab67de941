"""The health of the model: its base, the checkpoint that the next job starts from, and what else there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from overnight.control.doctor.patient import Patient
from overnight.disk import backup_memory, backups, checkpoints
from overnight.disk.trust import READ_AT_ONCE_BYTES
from overnight.domain import diagnosis
from overnight.domain.checkpoint import Verdict
from overnight.domain.diagnosis import Check, failed, passed, skipped, warned


def look_at_base(patient: Patient) -> Check:
    """Is the base model there, and the one that the checkpoints were trained on?"""
    if patient.checked.settings is None:
        return skipped("base model", "the settings cannot be read")
    missing = [
        problem for problem in patient.checked.errors if problem.key == "base_model" and problem.code != "locked"
    ]
    wrong = [problem for problem in patient.start.hindrances if problem.key == "base_model"]
    for problem in [*wrong, *missing]:
        return failed("base model", f"{problem.message}: {problem.found}", fix=problem.fix or "bring it back")
    base = patient.start.base
    if base.fingerprint is None:
        return passed("base model", f"{base.path}: read by the trainer when it starts")
    if patient.start.is_base_as_trained:
        return passed("base model", f"{base.path} is the one that the checkpoints were trained on")
    return passed("base model", f"{base.path} can be read")


def look_at_checkpoints(patient: Patient) -> Check:
    """Is the newest checkpoint whole?"""
    start = patient.start
    lost = [problem for problem in start.hindrances if problem.code == "no_checkpoint"]
    if lost:
        return failed("checkpoints", f"{lost[0].message}: {lost[0].found}", fix=lost[0].fix or "overnight verify")
    if start.newest is None:
        return passed("checkpoints", "none yet: the first job starts from the base model")
    if start.passed_over:
        first = start.passed_over[0]
        return warned(
            "checkpoints",
            f"{Path(first.path).name} is {first.verdict.value}: {first.reason}; work goes on from"
            f" {Path(start.newest.path).name}",
            fix="nothing: it is set aside when work goes on; overnight verify tells more",
        )
    return passed("checkpoints", f"{Path(start.newest.path).name} is whole, read to the last byte")


def look_at_backups(patient: Patient) -> Check:
    """Is there something to fall back to?"""
    settings = patient.checked.settings
    if settings is not None and settings.backup.path is not None:
        return _look_at_copies(patient, Path(settings.backup.path))
    found = checkpoints.scan(patient.layout.model, verify_content=False)
    verified = sum(report.verdict is Verdict.VERIFIED for report in found)
    return diagnosis.judge_backups(verified=verified, keep=int(patient.number("checkpoint", "keep", 5)))


def _look_at_copies(patient: Patient, place: Path) -> Check:
    """Are the copies in the second place whole? Big ones are not read here: they count while they look as they did."""
    memory = backup_memory.read(patient.layout, str(place))
    verified: list[str] = []
    damaged: dict[str, str] = {}
    unread = 0
    try:
        if backups.read_marker(place) is None:
            what = "is not there" if not place.is_dir() else "holds no copies"
            trouble = f"the second place {place} {what}: its disk is not mounted, or none was ever made"
            return diagnosis.judge_copies(str(place), verified=[], damaged={}, unread=0, trouble=trouble)
        for copy in backups.listing(place, verify_content=False):
            folder = Path(copy.path)
            if memory.is_fresh(copy.name, backups.looks_of(folder), now=patient.now):
                verified.append(copy.name)
            elif copy.bytes > READ_AT_ONCE_BYTES and not copy.reason.startswith("complete"):
                damaged[copy.name] = copy.reason
            elif copy.bytes > READ_AT_ONCE_BYTES:
                unread += 1
            elif (read := backups.judge(folder, verify_content=True)).is_verified:
                verified.append(copy.name)
            else:
                damaged[copy.name] = read.reason
    except OSError as error:
        trouble = f"the second place {place} cannot be read: {error.strerror or error}"
        return diagnosis.judge_copies(str(place), verified=[], damaged={}, unread=0, trouble=trouble)
    return diagnosis.judge_copies(str(place), verified=verified, damaged=damaged, unread=unread, trouble=None)


LOOKS: tuple[tuple[str, Callable[[Patient], Check]], ...] = (
    ("base model", look_at_base),
    ("checkpoints", look_at_checkpoints),
    ("backups", look_at_backups),
)
