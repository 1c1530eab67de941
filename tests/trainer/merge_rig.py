"""Merges in tests: a trained rig, the spec of a merge of its newest checkpoint, and the process that merges."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rig import Rig, sums

from overnight.disk import attempts, builtin, fingerprints
from overnight.domain.merge import MergeReport, MergeSpec
from overnight.trainer.faults import Faults


def trained(root: Path, **changes: Any) -> Rig:
    """Return a workspace whose model has learnt one small file."""
    rig = Rig(root, **changes)
    rig.train(1, rig.rows(sums(1, 24), "one"))
    return rig


def spec_of(rig: Rig, name: str = "merge-01", **changes: Any) -> MergeSpec:
    """Return what a merge of the newest checkpoint is told."""
    newest = rig.newest()
    assert newest is not None
    base = Path(builtin.resolve(rig.layout, rig.settings["base_model"]))
    spec = MergeSpec(
        attempt=name, workspace=str(rig.layout.root), base_model=str(base),
        base_fingerprint=fingerprints.of_folder(base), checkpoint=newest.path,
        method=str(rig.settings.get("method", "lora")), target=str(rig.layout.versions / f".staging-{name}"),
        step=newest.step, probes=["12+34?"], created_at=time.time(),
    )  # fmt: skip
    return dataclasses.replace(spec, **changes)


def place(rig: Rig, spec: MergeSpec) -> Path:
    """Make the attempt directory."""
    folder = rig.layout.attempt(spec.attempt)
    folder.mkdir(parents=True)
    attempts.write_spec(folder, spec)
    return folder


def launch(rig: Rig, spec: MergeSpec, *before: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a merge as a process of its own, with a command such as strace before it."""
    folder = place(rig, spec)
    with open(folder / "trainer.log", "wb") as log:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "overnight.trainer", str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env={**os.environ, **environment},
        )  # fmt: skip


def end(rig: Rig, spec: MergeSpec, process: subprocess.Popen[bytes]) -> tuple[int, MergeReport | None]:
    """Wait for the end of a merge; return exit code and last word."""
    try:
        code = process.wait(100)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    return code, attempts.read_merge_report(rig.layout.attempt(spec.attempt))


class Striker(Faults):
    """Does something to the world at a fault point."""

    def __init__(self, site: str, deed: Callable[[], Any]) -> None:
        super().__init__(None)
        self.strikes_at, self.deed = site, deed

    def reach(self, site: str, count: int | None = None, **_: Any) -> None:
        if site == self.strikes_at:
            self.strikes_at = ""
            self.deed()


def merge_here(rig: Rig, spec: MergeSpec, faults: Faults | None = None) -> MergeReport:
    """Merge inside this process, which has torch loaded already, to the last word that a process would leave."""
    from overnight.trainer import __main__ as entry
    from overnight.trainer import merge
    from overnight.trainer.pulse import Pulse
    from overnight.trainer.wishes import AskedToLeave, Wishes

    folder = place(rig, spec)
    pulse = Pulse(folder, spec)
    wishes = Wishes(folder, unwatched_limit_s=1e9)
    task = merge.Task(spec=spec, pulse=pulse, wishes=wishes, faults=faults or Faults(None))
    try:
        report: Any = merge.merge(task)
    except AskedToLeave as asked:
        report = entry.left_early(pulse, asked, spec)
    except BaseException as error:  # as the trainer's own border does
        report = entry.crashed(pulse, error, spec)
    entry.leave(folder, pulse, report)
    found = attempts.read_merge_report(folder)
    assert found == report
    return found
