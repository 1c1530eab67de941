"""What a trainer knows of itself and says: heartbeats, numbers, notes; the last word is made from it too.

Beats come from the thread that does the work, never from a thread of their own: a heartbeat says that something moved.
A disk that refuses them stops nothing; the training goes on, what they say is said in memory, and the next beat tries
again.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from overnight.disk import attempts
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome, Phase, Report, Spec
from overnight.domain.checkpoint import step_of
from overnight.domain.errors import DiskError
from overnight.domain.merge import MergeSpec
from overnight.launchers import whispers
from overnight.launchers.beats import Beat

PAUSE_S = 0.25
"""Between two heartbeats, and between two writes of numbers."""

HELD_BACK_LIMIT = 10_000
"""Lines of numbers kept while the disk refuses them; the oldest go first."""

SPEED_WINDOW_S = 30.0
"""Speed and remaining time are told from the last seconds of training."""


class Pulse:
    """The trainer's knowledge of itself; fields are set by whoever learns something, then ``beat`` is called."""

    def __init__(self, folder: Path, spec: Spec | MergeSpec) -> None:
        self.folder = folder
        self.attempt = spec.attempt
        self.start_step, self.job_step, begun_at = _standing(spec)
        self.job_total: int | None = None
        self.loss: float | None = None
        self.eval_loss: float | None = None
        self.learning_rate: float | None = None
        self.epoch: float | None = None
        self.tokens_per_second: float | None = None
        self.eta_s: float | None = None
        self.checkpoint: int | None = begun_at
        self.part = 0
        self.parts: int | None = None
        self.stretch = 1.0  # how many times longer than the mean the longest row is
        self.accounts: dict[str, int] | None = None
        self.samples: dict[str, object] | None = None
        self.judged: list[dict[str, object]] | None = None
        self.notes: list[str] = []
        self.waits = ""
        self.phase = Phase.LOADING
        self._phase_since = attempts.boot_time()
        self._progress = 0
        self._boot_id = attempts.boot_id()
        self._next_beat = 0.0
        self._next_flush = 0.0
        self._lines: list[dict[str, Any]] = []
        self._whisper: Beat | None = None
        self._window: list[tuple[float, int, int]] = []  # when, steps, tokens

    @property
    def step(self) -> int:
        """Return the global step."""
        return self.start_step + self.job_step

    @property
    def total(self) -> int | None:
        """Return the global step at which this job ends."""
        return None if self.job_total is None else self.start_step + self.job_total

    def enter(self, phase: Phase) -> None:
        """Begin another phase; told at once."""
        if phase is not self.phase:
            self.phase = phase
            self._phase_since = attempts.boot_time()
            self._window.clear()  # speed is that of training, not of what lay between
        self._progress += 1
        self._write()

    def wait_for(self, what: str) -> None:
        """Say what is waited for, "" where that is over: waiting is a move."""
        self.waits = what
        self.beat()

    def beat(self) -> None:
        """Say that something moved; written a few times a second at most."""
        self._progress += 1
        if time.monotonic() >= self._next_beat:
            self._write()

    def note(self, text: str) -> None:
        """Keep something worth telling; it goes into the report, and into the log now."""
        self.notes.append(text)
        print(f"note: {text}", flush=True)

    def measure(self, *, tokens: int) -> None:
        """Take in that one more step was made with so many tokens; sets speed and remaining time."""
        now = time.monotonic()
        window = self._window
        steps, seen = (window[-1][1] + 1, window[-1][2] + tokens) if window else (0, 0)
        if len(window) >= 2 and now - window[-1][0] < SPEED_WINDOW_S / 100:
            window[-1] = (window[-1][0], steps, seen)
        else:
            window.append((now, steps, seen))
            while now - window[0][0] > SPEED_WINDOW_S and len(window) > 2:
                window.pop(0)
        elapsed, made = now - window[0][0], steps - window[0][1]
        if elapsed > 0 and made > 0:
            self.tokens_per_second = (seen - window[0][2]) / elapsed
            if self.job_total is not None:
                self.eta_s = elapsed / made * (self.job_total - self.job_step)

    def record(self, line: dict[str, Any]) -> None:
        """Append a line of numbers to the metrics; written a few times a second at most."""
        self._lines.append(line)
        if time.monotonic() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Write the numbers held back."""
        self._next_flush = time.monotonic() + PAUSE_S
        if not self._lines:
            return
        try:
            attempts.append_metrics(self.folder, *self._lines)
        except (OSError, DiskError):
            del self._lines[:-HELD_BACK_LIMIT]
        else:
            self._lines.clear()

    def report(
        self,
        outcome: Outcome,
        message: str,
        *,
        kind: FailureKind | None = None,
        traceback: str | None = None,
        charged: bool = False,
    ) -> Report:
        """Return the last word."""
        return Report(
            attempt=self.attempt,
            outcome=outcome,
            kind=kind,
            message=message,
            traceback=traceback,
            charged=charged,
            step=self.step,
            total=self.total,
            job_step=self.job_step,
            checkpoint=self.checkpoint,
            loss=finite(self.loss),
            eval_loss=finite(self.eval_loss),
            tokens=self.accounts,
            samples=self.samples,
            notes=list(self.notes),
            ended_at=time.time(),
            judged=self.judged,
        )

    def _write(self) -> None:
        self._next_beat = time.monotonic() + PAUSE_S
        heartbeat = Heartbeat(
            attempt=self.attempt,
            pid=os.getpid(),
            phase=self.phase,
            progress=self._progress,
            step=self.step,
            total=self.total,
            loss=finite(self.loss),
            eval_loss=finite(self.eval_loss),
            learning_rate=finite(self.learning_rate),
            epoch=finite(self.epoch),
            tokens_per_second=finite(self.tokens_per_second),
            eta_s=finite(self.eta_s),
            checkpoint=self.checkpoint,
            phase_since=self._phase_since,
            beat_at=attempts.boot_time(),
            written_at=time.time(),
            boot_id=self._boot_id,
            stretch=self.stretch,
            part=self.part,
            parts=self.parts,
            waits=self.waits,
        )
        try:
            attempts.write_heartbeat(self.folder, heartbeat)
        except (OSError, DiskError):  # a full disk must not end the training
            self._whisper = self._whisper or Beat()
            whispers.say(self._whisper, heartbeat)


def _standing(spec: Spec | MergeSpec) -> tuple[int, int, int | None]:
    """Return where the job began, how many of its steps are made, and the step of the newest checkpoint."""
    if isinstance(spec, MergeSpec):
        return spec.step, 0, spec.step
    begun_at = step_of(Path(spec.checkpoint).name) if spec.checkpoint is not None else None
    is_resumed = begun_at is not None and spec.mode in ("resume", "judge")
    return spec.start_step, (begun_at or 0) - spec.start_step if is_resumed else 0, begun_at


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, else None."""
    return value if value is not None and math.isfinite(value) else None
