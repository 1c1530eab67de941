"""The memory of how long a run's moves take: .overnight/pace.json, by what jobs must have in common to be compared.

It may be lost at any time: then the ceilings of the settings stand until enough was seen again.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.pace import Kind, Pace

SCHEMA = 1
MOST_SUBJECTS = 8


def read(layout: Layout, subject: str) -> dict[Kind, Pace]:
    """Return what is known of a subject; nothing where there is nothing, or nothing that can be read."""
    kinds = _subjects(layout).get(subject)
    found: dict[Kind, Pace] = {}
    for kind in Kind:
        try:
            found[kind] = _pace(kinds[kind.name.lower()])  # type: ignore[index]
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def write(layout: Layout, subject: str, paces: dict[Kind, Pace]) -> None:
    """Keep what is known of a subject, beside a few others. Raises DiskError."""
    subjects = _subjects(layout)
    subjects.pop(subject, None)
    subjects[subject] = {kind.name.lower(): dataclasses.asdict(pace) for kind, pace in paces.items()}
    kept = dict(list(subjects.items())[-MOST_SUBJECTS:])
    files.write_json_atomically(layout.paces, {"schema": SCHEMA, "subjects": kept})


def _subjects(layout: Layout) -> dict[str, Any]:
    try:
        value = files.read_json(layout.paces)
        return dict(value["subjects"]) if value["schema"] == SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _pace(value: dict[str, Any]) -> Pace:
    pace = Pace(
        moves=int(value["moves"]), typical_s=float(value["typical_s"]), recent_s=float(value["recent_s"]),
        longest_s=float(value["longest_s"]), before_s=float(value["before_s"]), sightings=int(value["sightings"]),
    )  # fmt: skip
    times = (pace.typical_s, pace.recent_s, pace.longest_s, pace.before_s)
    if pace.moves < 1 or pace.sightings < 1 or not all(math.isfinite(time) and time >= 0 for time in times):
        raise ValueError("no pace at all")
    return pace
