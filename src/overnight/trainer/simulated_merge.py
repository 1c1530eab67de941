"""A merge without torch: it keeps the whole protocol, and what it makes is a folder with the simulated model in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from types import FrameType

from overnight.disk import attempts, checkpoints, files, model_files
from overnight.disk.layout import Layout
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome, Phase
from overnight.domain.checkpoint import Verdict
from overnight.domain.errors import ConfigError, DiskError, ExitCode, OvernightError
from overnight.domain.merge import MergeReport, MergeSpec, Problem
from overnight.trainer import faults

STATE = "state.json"
PARTS = ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", STATE, "model.safetensors")


class Merge:
    """One merge."""

    def __init__(self, folder: Path, spec: MergeSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.progress = 0
        self.since = attempts.boot_time()
        self.asked = False

    def run(self) -> MergeReport:
        """Write the target folder, read it again; return the last word."""
        planned = faults.from_environment(self.spec.attempt)
        source, target = Path(self.spec.checkpoint), Path(self.spec.target)
        self.beat()
        found = checkpoints.verify(source)
        if found.verdict is not Verdict.VERIFIED:
            raise ConfigError("The checkpoint cannot be merged", found=found.reason, code="checkpoint_corrupt")
        state = files.read_json(source / STATE)
        files.make_directory(target / "adapter")
        contents = {
            "config.json": {"model_type": "simulated", "vocab_size": 1},
            "tokenizer.json": {"simulated": True},
            "generation_config.json": {},
            STATE: {"chain": state["chain"], "ledger": state["ledger"]},
        }
        for name in PARTS:
            planned.reach("merge")
            if self.asked or attempts.read_notice(self.folder) is not None:
                raise InterruptedError
            data = json.dumps(contents[name]).encode() if name in contents else weights(str(state["chain"]))
            with files.open_new(target / name) as writer:
                writer.write(data)
            self.beat()
        with files.open_new(target / "adapter" / "weights.bin") as writer:
            writer.write((source / "weights.bin").read_bytes())
        planned.reach("merged")
        written = model_files.contents_of(target, on_file=self.beat)
        return MergeReport(
            attempt=self.spec.attempt, outcome=Outcome.COMPLETED, message="merged", max_abs_difference=0.0,
            max_abs_difference_from_base=1.0, tolerance=0.0, tensors_changed=1, tensors=1, dtype="U8", files=written,
            bytes=sum(os.stat(target / name).st_size for name in written), ended_at=time.time(),
        )  # fmt: skip

    def beat(self) -> None:
        """Say that something moved."""
        self.progress += 1
        heartbeat = Heartbeat(
            attempt=self.spec.attempt, pid=os.getpid(), phase=Phase.MERGING, progress=self.progress,
            step=self.spec.step, total=None, loss=None, eval_loss=None, learning_rate=None, epoch=None,
            tokens_per_second=None, eta_s=None, checkpoint=None, phase_since=self.since,
            beat_at=attempts.boot_time(), written_at=time.time(), boot_id=attempts.boot_id(),
            part=self.progress, parts=2 * len(PARTS) + 2,
        )  # fmt: skip
        with contextlib.suppress(DiskError):
            attempts.write_heartbeat(self.folder, heartbeat)

    def leave(self) -> ExitCode:
        """Merge, leave the report, return the exit code."""
        try:
            report = self.run()
        except InterruptedError:
            report = MergeReport(attempt=self.spec.attempt, outcome=Outcome.PREEMPTED, message="asked to leave")
        except (OvernightError, OSError, faults.PlannedFault) as error:
            report = self._failed(error)
        attempts.write_report(self.folder, report)
        return ExitCode.OK if report.outcome is Outcome.COMPLETED else ExitCode.PROBLEM

    def _failed(self, error: Exception) -> MergeReport:
        is_disk = isinstance(error, DiskError) or (isinstance(error, OSError) and files.is_disk_trouble(error))
        told = error if isinstance(error, OvernightError) else OvernightError(f"The merge failed: {error}")
        return MergeReport(
            attempt=self.spec.attempt, outcome=Outcome.CRASHED, message=told.what,
            failure=FailureKind.DISK_FULL if is_disk else FailureKind.CODE_ERROR,
            problem=Problem(code=told.code or "merge", what=told.what, found=told.found, fix=told.fix),
        )  # fmt: skip


def weights(chain: str) -> bytes:
    """Return a whole safetensors file with one tensor that hangs on the chain."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + chain.encode()[:64].ljust(64, b"\0")


def main(folder: Path, spec: MergeSpec) -> ExitCode:
    """Run one merge under the model's lock."""
    merge = Merge(folder, spec)

    def ask(number: int, frame: FrameType | None) -> None:
        merge.asked = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, ask)
    lock = files.Lock(Layout(Path(spec.workspace)).model_lock)
    if spec.takes_lock and not lock.acquire(holder={"pid": os.getpid(), "attempt": spec.attempt, "since": time.time()}):
        return ExitCode.BUSY
    return merge.leave()
