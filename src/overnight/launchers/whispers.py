"""A trainer's heartbeat in memory, for times in which the disk takes none: said with a beat, heard through /proc."""

from __future__ import annotations

import dataclasses
import json

from overnight.domain.attempt import Heartbeat, Phase
from overnight.launchers import beats
from overnight.launchers.beats import Beat
from overnight.launchers.processes import Identity

WORDS = 180
"""So many signs of what is waited for fit into a beat."""


def say(beat: Beat, heartbeat: Heartbeat) -> None:
    """Say what a heartbeat says, as far as it fits."""
    told = [
        heartbeat.attempt, heartbeat.phase.value, heartbeat.progress, heartbeat.step, heartbeat.total,
        heartbeat.checkpoint, round(heartbeat.phase_since, 2), round(heartbeat.written_at, 2), heartbeat.waits[:WORDS],
    ]  # fmt: skip
    beat.say(json.dumps(told, ensure_ascii=False, separators=(",", ":")), at=heartbeat.beat_at)


def hear(identity: Identity, attempt: str, last: Heartbeat | None) -> Heartbeat | None:
    """Return what a trainer says in memory where it is newer than its last heartbeat on disk, else None."""
    heard = beats.hear(identity)
    if heard is None:
        return None
    try:
        told, phase, progress, step, total, checkpoint, since, written_at, waits = json.loads(heard.doing)
        if told != attempt or (last is not None and heard.at <= last.beat_at):
            return None
        known = last if last is not None else _nothing_known(identity, attempt)
        return dataclasses.replace(
            known, phase=Phase(phase), progress=int(progress), step=int(step), total=total, checkpoint=checkpoint,
            phase_since=float(since), beat_at=heard.at, written_at=float(written_at), waits=str(waits),
        )  # fmt: skip
    except (ValueError, TypeError):
        return None


def _nothing_known(identity: Identity, attempt: str) -> Heartbeat:
    return Heartbeat(
        attempt=attempt, pid=identity.pid, phase=Phase.LOADING, progress=0, step=0, total=None, loss=None,
        eval_loss=None, learning_rate=None, epoch=None, tokens_per_second=None, eta_s=None, checkpoint=None,
        phase_since=0.0, beat_at=0.0, written_at=0.0, boot_id="",
    )  # fmt: skip
