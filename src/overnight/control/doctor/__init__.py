"""The health check: about twenty looks at a workspace and its machine, each with a deadline, none in another's way.

It needs neither the daemon nor torch nor sound settings; whatever cannot be looked at is told as such. ``fix`` only
does what cannot lose anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from overnight.control.doctor import guards, machine, model, workspace
from overnight.control.doctor.patient import Patient
from overnight.disk.layout import Layout
from overnight.domain.diagnosis import Check, failed, warned

LIMIT_S = 20.0
"""A check that takes longer is told as such, and the next one begins."""


def diagnose(layout: Layout, *, now: float, limit_s: float = LIMIT_S) -> list[Check]:
    """Do every check, in the order in which one would mend things."""
    patient = Patient(layout, now=now)
    looks = [*workspace.LOOKS, *model.LOOKS, *guards.LOOKS, *machine.LOOKS]
    return [_within(limit_s, name, look, patient) for name, look in looks]


def fix(layout: Layout, checks: list[Check]) -> list[str]:
    """Mend what can be mended without losing anything; return what was done. Raises DiskError."""
    names = {check.name for check in checks if check.can_be_fixed}
    return [done for name, mend in workspace.MENDS if name in names for done in mend(layout)]


def to_json(checks: list[Check]) -> list[dict[str, Any]]:
    """Return checks as ``overnight doctor --json`` tells them."""
    return [
        {"name": check.name, "status": check.status.value, "message": check.message, "fix": check.fix}
        for check in checks
    ]  # fmt: skip


def _within(limit_s: float, name: str, look: Callable[[Patient], Check], patient: Patient) -> Check:
    """Do one check in a thread of its own: a disk or a driver that hangs must not hang the doctor."""
    answers: list[Check] = []

    def work() -> None:
        try:
            answers.append(look(patient))
        except Exception as error:  # the border of a check: whatever it is, the next one is done
            message = f"it could not be looked at: {type(error).__name__}: {error}"
            answers.append(failed(name, message.splitlines()[0], fix="overnight doctor again; please report it"))

    thread = threading.Thread(target=work, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(limit_s)
    if answers:
        return answers[0]
    message = f"it did not end within {limit_s:g} s: the disk or the driver is very slow, or hangs"
    return warned(name, message, fix="look again later")
