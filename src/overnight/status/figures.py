"""The losses that belong to where the model stands: while nothing trains, not those of whoever trained last."""

from __future__ import annotations

import sqlite3

from overnight.database import queue
from overnight.disk import attempts, locked, versions
from overnight.disk.layout import Layout
from overnight.domain.attempt import Attempt, Heartbeat
from overnight.domain.checkpoint import CheckpointReport, Manifest

LINES = 300
"""So many of the last numbers of an attempt are looked through for those of its last checkpoint."""

Losses = tuple[float | None, float | None]
"""Of training and of evaluation; None where nobody can tell."""


def losses(
    layout: Layout,
    connection: sqlite3.Connection,
    *,
    attempt: Attempt | None,
    last: Attempt | None,
    heartbeat: Heartbeat | None,
    newest: CheckpointReport | None,
) -> Losses:
    """Return the losses that the open attempt tells, else those of the model as it stands.

    ``last`` is the attempt that trained last; the heartbeat is of the open one, else of the last one.
    """
    if attempt is not None:
        return (heartbeat.loss, heartbeat.eval_loss) if heartbeat is not None else (None, None)
    manifest = newest.manifest if newest is not None else None
    if manifest is None:
        return _of_version(layout)
    if last is not None and heartbeat is not None and (manifest.attempt, manifest.step) == (last.id, heartbeat.step):
        return heartbeat.loss, heartbeat.eval_loss
    trained = queue.accounting(connection, manifest.job).get("trained") or {}
    if manifest.job_step == manifest.job_total and trained:
        return trained.get("loss"), trained.get("eval_loss")
    return _measured(layout, manifest)


def _of_version(layout: Layout) -> Losses:
    """Return what was measured when the version in use was trained: nothing was trained on it yet."""
    try:
        identity = locked.version_in_use(layout)
        metrics = versions.read(layout.versions / identity).metrics if identity is not None else {}
        return metrics.get("loss"), metrics.get("eval_loss")
    except (OSError, ValueError, AttributeError):
        return None, None


def _measured(layout: Layout, manifest: Manifest) -> Losses:
    lines = attempts.read_metrics(layout.attempt(manifest.attempt), limit=LINES)
    found = [line.get("loss") for line in lines if line.get("step") == manifest.step]
    loss = next((one for one in reversed(found) if isinstance(one, int | float)), None)
    return loss, None
