"""The health of the workspace itself: its folders, who may write there, its settings and their lock, the web port."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable

from overnight.control.doctor.patient import Patient
from overnight.disk import files, locked
from overnight.disk import workspace as store
from overnight.disk.layout import Layout
from overnight.domain.diagnosis import Check, failed, passed, skipped, warned
from overnight.domain.locked import refused


def look_at_folders(patient: Patient) -> Check:
    """Are all folders there?"""
    missing = [folder.relative_to(patient.layout.root).as_posix() for folder in store.missing_folders(patient.layout)]
    if not missing:
        return passed("workspace", f"{patient.layout.root}: every folder is there")
    told = f"missing: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
    return warned("workspace", told, fix="overnight doctor --fix makes them again", can_be_fixed=True)


def look_at_permissions(patient: Patient) -> Check:
    """May this user write everywhere, and nobody else?"""
    layout = patient.layout
    for folder in layout.folders():
        if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            message = f"{folder} cannot be written by this user (uid {os.geteuid()})"
            return failed("permissions", message, fix=f"run as its owner (uid {os.stat(folder).st_uid}), or chown it")
    facts = os.stat(layout.root)
    if facts.st_uid != os.geteuid():
        message = f"the workspace belongs to uid {facts.st_uid}, this is uid {os.geteuid()}"
        return warned("permissions", message, fix="run every command as the user that runs the daemon")
    ours = {layout.root, layout.waiting.parent, *layout.folders(), layout.config, layout.database} - {layout.inbox}
    if is_open := [path for path in sorted(ours) if os.path.exists(path) and os.stat(path).st_mode & stat.S_IWOTH]:
        message = f"everybody may write {', '.join(map(str, is_open[:3]))}{' ...' if len(is_open) > 3 else ''}"
        return warned("permissions", message, fix=f"chmod -R o-w {layout.root}; the inbox alone may be open to others")
    return passed("permissions", "this user may write, strangers may not")


def look_at_config(patient: Patient) -> Check:
    """Are the settings sound?"""
    elsewhere = ("base_model",) if patient.checked.settings is not None else ()  # there is a check of its own for it
    wrong = [one for one in patient.checked.errors if one.code != "locked" and one.key not in elsewhere]
    if wrong:
        first = str(refused(wrong)).splitlines()[0]
        return failed("config", first, fix="overnight config check tells all of it")
    warnings = [problem for problem in patient.checked.problems if problem.level == "warning"]
    if warnings:
        return warned("config", warnings[0].message, fix=warnings[0].fix or "overnight config check tells all of it")
    return passed("config", "config.json is valid")


def look_at_lock(patient: Patient) -> Check:
    """Are the locked settings as they were, and is the copy of the lock in its place?"""
    lock = patient.checked.locked
    changed = [problem for problem in patient.checked.errors if problem.code == "locked"]
    if changed:
        told = ", ".join(problem.key for problem in changed if problem.key)
        message = f"changed while checkpoints exist: {told}" if told else changed[0].message
        return failed("lock", message, fix=changed[0].fix or "overnight config lock tells what is locked")
    if lock.source is None:
        return passed("lock", "nothing is locked before the first checkpoint")
    try:
        known = files.read_json(patient.layout.config_lock)
        is_same = known["locked"] == lock.values
    except (OSError, ValueError, KeyError, TypeError):
        is_same = False
    if not is_same:
        message = f".config_lock.json is missing or edited; {lock.source} holds the lock itself, nothing is open"
        return warned("lock", message, fix="overnight doctor --fix writes it again", can_be_fixed=True)
    return passed("lock", f"as locked by {lock.source}")


def look_at_port(patient: Patient) -> Check:
    """Can the web page take its port?"""
    settings = patient.checked.settings
    if settings is None:
        return skipped("web port", "the settings cannot be read")
    host, port = settings.server.host, settings.server.port
    if port == 0:
        return passed("web port", "any free one is taken")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return warned("web port", f"{host}:{port} is taken", fix="overnight config set server.port 0 takes any")
            return warned(
                "web port", f"{host}:{port}: {error.strerror or error}", fix="overnight config set server.host"
            )
    return passed("web port", f"{host}:{port} is free")


def make_folders(layout: Layout) -> list[str]:
    """Make missing folders."""
    missing = store.missing_folders(layout)
    for folder in missing:
        files.make_directory(folder)
    return [f"made {folder}" for folder in missing]


def write_lock(layout: Layout) -> list[str]:
    """Write the copy of the lock again from the checkpoint that holds it."""
    locked.refresh(layout)
    return [f"wrote {layout.config_lock.name} again"]


LOOKS: tuple[tuple[str, Callable[[Patient], Check]], ...] = (
    ("workspace", look_at_folders),
    ("permissions", look_at_permissions),
    ("config", look_at_config),
    ("lock", look_at_lock),
    ("web port", look_at_port),
)
MENDS: tuple[tuple[str, Callable[[Layout], list[str]]], ...] = (("workspace", make_folders), ("lock", write_lock))
