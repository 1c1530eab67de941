"""The picture: one frozen Snapshot of a workspace, for the command line, the live view and the status file."""

from __future__ import annotations

from overnight.status.answers import to_json, training_status
from overnight.status.snapshot import Process, Snapshot, snapshot

__all__ = ["Process", "Snapshot", "snapshot", "to_json", "training_status"]
