"""The health of the machine: disk, inodes, memory, device and driver, libraries, clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata

from overnight.control.doctor.patient import Patient
from overnight.database import events
from overnight.disk import checkpoints, files
from overnight.domain import diagnosis
from overnight.domain.diagnosis import Check, passed, warned
from overnight.domain.errors import OvernightError
from overnight.launchers import devices

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def look_at_disk(patient: Patient) -> Check:
    """Is there room for the next save?"""
    newest = checkpoints.newest_complete(patient.layout.model)
    return diagnosis.judge_disk(
        free_bytes=files.free_bytes(patient.layout.root),
        needed_bytes=patient.number("disk", "min_free_gb", 2.0) * 1e9,
        checkpoint_bytes=newest.bytes if newest is not None else 0,
    )


def look_at_inodes(patient: Patient) -> Check:
    """Does the file system take more files?"""
    facts = os.statvfs(patient.layout.root)
    return diagnosis.judge_inodes(free=facts.f_favail, total=facts.f_files)


def look_at_memory(patient: Patient) -> Check:
    """Is there memory?"""
    import psutil  # only here: it costs a start more than the rest of the command line

    facts = psutil.virtual_memory()
    return diagnosis.judge_memory(available_bytes=facts.available, total_bytes=facts.total)


def look_at_device(patient: Patient) -> Check:
    """Does the GPU's driver answer?"""
    settings = patient.checked.settings
    return diagnosis.judge_device(devices.ask_gpus(), wanted=settings.train.device if settings is not None else "auto")


def look_at_libraries(patient: Patient) -> Check:
    """Are the libraries of the trainer there, in the versions that wrote the newest checkpoint? Loads none of them."""
    found = {name: _version(name) for name in LIBRARIES}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        message = f"missing: {', '.join(missing)}; this installation controls, and cannot train"
        return warned("libraries", message, fix="pip install 'overnight[train]'")
    newest = patient.start.newest
    recorded = newest.manifest.environment if newest is not None and newest.manifest is not None else {}
    libraries = recorded.get("libraries", recorded)
    then = libraries if isinstance(libraries, dict) else {}
    drifted = [
        f"{name} {then[name]} then, {now} now" for name, now in found.items() if then.get(name) not in (None, now)
    ]
    if drifted:
        fix = "fine as it is; bit equality of a resume is promised with the same versions only"
        return warned("libraries", "; ".join(drifted), fix=fix)
    return passed("libraries", ", ".join(f"{name} {version}" for name, version in found.items()))


def look_at_clock(patient: Patient) -> Check:
    """Does the wall clock stand where it can?"""
    try:
        with patient.connected() as connection:
            found = events.newest(connection, limit=1)
    except OvernightError:
        found = []
    return diagnosis.judge_clock(now=patient.now, newest=float(found[-1]["at"]) if found else None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


LOOKS: tuple[tuple[str, Callable[[Patient], Check]], ...] = (
    ("disk", look_at_disk),
    ("inodes", look_at_inodes),
    ("memory", look_at_memory),
    ("device", look_at_device),
    ("libraries", look_at_libraries),
    ("clock", look_at_clock),
)
