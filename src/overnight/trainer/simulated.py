"""A trainer without torch: it keeps the whole protocol of the attempt directory, and its training is a chain of hashes.

    python -m overnight.trainer.simulated ATTEMPT_DIR

For tests of the daemon and a look at it on any machine. Like the real one it resumes exactly: the chain depends on each
row, their order, the seed and the learning rate. Each checkpoint carries the ledger of all rows consumed so far.

How it behaves is ordered from outside: see behaviour.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from overnight.disk import attempts, checkpoints, files, fingerprints
from overnight.disk.folder_lock import FolderLock
from overnight.disk.layout import Layout
from overnight.domain import config
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome, Phase, Report, Spec
from overnight.domain.checkpoint import Verdict, step_of
from overnight.domain.errors import DiskError, ExitCode
from overnight.domain.merge import MergeSpec
from overnight.launchers import whispers
from overnight.launchers.beats import Beat
from overnight.trainer import failures, faults, simulated_merge
from overnight.trainer.behaviour import (
    FAULTS,
    JUDGING,
    VARIABLE,
    Fault,
    Options,
    die_by,
    eat,
    hang,
    judge,
    pulse,
    read_options,
)
from overnight.trainer.patience import LONGEST_WAIT_S, LeftUnsaved, Patience
from overnight.trainer.rehearsal import rehearsal_of
from overnight.trainer.simulated_save import STATE, Model, Saver
from overnight.trainer.stock import Stock
from overnight.trainer.wishes import unwatched_s

UNWATCHED_S = 90.0
LEAK_BYTES = 1 << 20
"""What each step leaks, where that was ordered."""


class Left(Exception):
    """The trainer was asked to leave."""


class Simulation:
    """One attempt."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.spec: Spec = attempts.read_spec(folder)
        self.layout = Layout(Path(self.spec.workspace))
        self.asked = False
        self.progress = 0
        self.phase = Phase.LOADING
        self.phase_since = attempts.boot_time()
        begun_at = step_of(Path(self.spec.checkpoint).name) if self.spec.checkpoint is not None else None
        step = self.spec.start_step if begun_at is None else begun_at  # as the real one says it while it loads
        self.model = Model(chain="", ledger=[], step=step, job_step=0)
        self.total: int | None = None
        self.committed: int | None = None
        self.loss: float | None = None
        self.lines: list[dict[str, Any]] = []  # numbers that the disk has not taken yet
        self.leaked: list[bytearray] = []
        self.faults = faults.from_environment(self.spec.attempt)
        self.base = self._look_at_base()
        self.stock = Stock(self.layout.model)
        self.owns_model: Callable[[], bool] = lambda: True  # whether the lock on the model is still ours
        self.waits = ""
        self.whisper: Beat | None = None
        self.patience = Patience(
            self.layout.root, limit_s=LONGEST_WAIT_S, asked=lambda: "asked to leave" if self._is_asked() else None,
            say=self._wait_for,
        )  # fmt: skip

    def _look_at_base(self) -> dict[str, str]:
        """Return what a checkpoint records of the base model, where there is one."""
        folder = Path(self.spec.base_model)
        if not (folder / "config.json").is_file():
            return {}
        return {"base_model": fingerprints.of_folder(folder), "tokenizer": fingerprints.of_tokenizer(folder)}

    def run(self) -> Report:
        """Load, train, save; return the last word."""
        self._beat()
        self._load()
        order = self._order()
        per_step = self._setting("train", "batch_size") * self._setting("train", "gradient_accumulation_steps")
        epochs = self._setting("train", "epochs")
        steps = -(-len(order) // epochs // per_step) * epochs
        self.total = self.spec.start_step + steps
        self._enter(Phase.TRAINING)
        rows_per_epoch, steps_per_epoch = len(order) // epochs, steps // epochs
        while self.model.job_step < steps:
            epoch, inside = divmod(self.model.job_step, steps_per_epoch)
            begin = epoch * rows_per_epoch + inside * per_step
            end = min(begin + per_step, (epoch + 1) * rows_per_epoch)
            self._step(order[begin:end])
            self._misbehave(self.model.job_step)
            if self._is_slow("evaluation"):
                self._evaluate()
            if self._is_asked():
                self._save(steps)
                raise Left
            is_due = self.model.job_step % self._setting("checkpoint", "every_steps") == 0
            had = self.committed is not None or self.spec.checkpoint is not None
            if is_due or self.model.job_step == steps or (self.owns_model() and self.stock.is_lost(had=had)):
                self._save(steps)
        judged = judge(self.spec, self.options, self._before_a_set)
        return dataclasses.replace(self._report(Outcome.COMPLETED, None, f"{steps} steps trained"), judged=judged)

    def _before_a_set(self) -> None:
        self._enter(Phase.EVALUATING)
        self._misbehave(JUDGING)
        if self._is_asked():
            raise Left

    def _setting(self, section: str, name: str) -> int:
        return int(self._section(section)[name])

    def _section(self, name: str) -> dict[str, Any]:
        value = self.spec.settings[name]
        assert isinstance(value, dict)
        return value

    def _load(self) -> None:
        deadline = time.monotonic() + self.options.load_s
        while time.monotonic() < deadline:
            if self._is_asked():
                raise Left
            time.sleep(0.02)
        self._misbehave(0)
        if self.spec.checkpoint is not None:
            report = checkpoints.verify(Path(self.spec.checkpoint))
            if report.verdict is not Verdict.VERIFIED or report.manifest is None:
                raise Fault(FailureKind.CHECKPOINT_CORRUPT, charged=False)
            state = files.read_json(Path(self.spec.checkpoint) / STATE)
            is_resume = self.spec.mode in ("resume", "judge")
            self.model = Model(
                chain=state["chain"],
                ledger=state["ledger"],
                step=report.step,
                job_step=report.manifest.job_step if is_resume else 0,
            )
            self.committed = report.step if self.spec.mode == "judge" else None
        elif (begun := Path(self.spec.base_model) / STATE).is_file():  # a version: what was trained is in its weights
            state = files.read_json(begun)
            self.model = Model(chain=state["chain"], ledger=state["ledger"], step=self.spec.start_step, job_step=0)
        self._beat()

    def _order(self) -> list[str]:
        """Return the rows in the order of training, each as its dataset and number, epoch after epoch."""
        with open(self.spec.dataset, "rb") as file:
            count = sum(1 for _ in file)
        rows = [f"{self.spec.dataset_id[:12]}:{number}" for number in range(count)]
        rehearsal = rehearsal_of(self.spec, config.parse(self.spec.settings))
        if rehearsal is not None:

            def take(lines: Sequence[bytes]) -> list[bool]:
                rows.extend(f"replayed:{hashlib.sha256(line).hexdigest()}" for line in lines)
                return [True] * len(lines)

            rehearsal.replay(count, take, self._beat)
        order: list[str] = []
        for epoch in range(self._setting("train", "epochs")):
            shuffled = list(rows)
            random.Random(self.spec.seed * 10_007 + epoch).shuffle(shuffled)
            order += shuffled
        return order

    def _step(self, rows: list[str]) -> None:
        left_out = {f"{self.spec.dataset_id[:12]}:{number - 1}" for number in self.spec.left_out}
        rows = [row for row in rows if row not in left_out]
        if self.options.fault == "row" and f"{self.spec.dataset_id[:12]}:{self.options.fault_step - 1}" in rows:
            raise Fault(FailureKind.NAN_LOSS, charged=True, bad_rows=[self.options.fault_step])
        if self.options.step_s:
            time.sleep(self.options.step_s)
        burned_until = time.process_time() + self.options.burn_s
        while time.process_time() < burned_until:
            pass
        self.faults.reach("step", self.model.job_step + 1)
        if self._is_slow("step", self.model.job_step + 1):
            time.sleep(self.options.slow_s)
        rate = self._section("train")["learning_rate"]
        text = "|".join([self.model.chain, *rows, str(rate), str(self.spec.seed), str(self.model.job_step)])
        self.model.chain = hashlib.sha256(text.encode()).hexdigest()
        self.model.ledger += rows
        self.model.step += 1
        self.model.job_step += 1
        trace = int(self.model.chain[:6], 16) / 16**6  # the loss hangs on everything done before, as a real one does
        self.loss = round(4.0 / (1.0 + 0.1 * self.model.step) + 1e-3 * trace, 9)
        self._beat()
        self.lines.append({"step": self.model.step, "loss": self.loss, "at": time.time()})
        with contextlib.suppress(OSError):
            attempts.append_metrics(self.folder, *self.lines)
            self.lines.clear()

    def _is_asked(self) -> bool:
        if self.asked or attempts.read_notice(self.folder) is not None:
            return True
        return unwatched_s(self.folder, self.layout.daemon_lock, limit_s=UNWATCHED_S) is not None

    def _save(self, steps: int) -> None:
        if self.committed == self.model.step:
            return
        if not self.owns_model():
            raise Fault(FailureKind.FILE_NOT_FOUND, charged=False)  # the folders below would be made anew
        self._enter(Phase.SAVING)
        if self._is_slow("save"):
            time.sleep(self.options.slow_s)
        padding = int(self.options.size_mb * 1e6)
        saver = Saver(self.spec, self.model, self.base, steps=steps, padding=padding)
        self.patience.save(saver.write, saver.need(), clear=saver.clear)
        self.committed = self.model.step
        self._enter(Phase.TRAINING)

    def _wait_for(self, what: str) -> None:
        self.waits = what
        self._beat()

    def _is_slow(self, kind: str, job_step: int | None = None) -> bool:
        step = self.model.job_step if job_step is None else job_step
        return self.options.slow == kind and self.options.slow_step == step

    def _evaluate(self) -> None:
        self._enter(Phase.EVALUATING)
        for _ in range(self.options.items):
            time.sleep(self.options.slow_s)
            self._beat()
        self._enter(Phase.TRAINING)

    def _misbehave(self, job_step: int) -> None:
        """Do what was ordered for this step."""
        number = int(self.spec.attempt.rpartition("-")[2])
        if number > self.options.fault_attempts:
            return
        if self.options.fault == "leak" and job_step >= self.options.fault_step:
            self.leaked.append(bytearray(b"x") * LEAK_BYTES)
        if job_step != self.options.fault_step:
            return
        match self.options.fault:
            case "exit0" | "exit1":
                os._exit(int(self.options.fault[-1]))
            case "segv":
                signal.raise_signal(signal.SIGSEGV)
            case "kill":
                signal.raise_signal(signal.SIGKILL)
            case "hang":
                hang()
            case "held":
                faults.held(self._beat)
            case "hang_in_evaluation":
                self._enter(Phase.EVALUATING)
                hang()
            case "hang_in_save":
                self._enter(Phase.SAVING)
                hang()
            case "busy":
                sum(range(1 << 62))  # in native code, with the interpreter's lock: no handler ever runs
            case "pulse":
                pulse(self._beat_in_vain)
            case "deaf":
                faults.deaf()
            case "perturb":
                self.model.chain = hashlib.sha256(self.model.chain.encode()).hexdigest()
            case "mute":
                print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", file=sys.stderr)
                os._exit(1)
            case "eat":
                eat()
            case "xfsz" | "xcpu" | "abrt" | "ill" | "bus":
                die_by(signal.Signals[f"SIG{self.options.fault.upper()}"])
            case kind if kind in FAULTS:
                failure, charged = FAULTS[kind]
                raise Fault(failure, charged=charged)

    def _beat_in_vain(self) -> None:
        self.progress -= 1
        self._beat()

    def _enter(self, phase: Phase) -> None:
        self.phase, self.phase_since = phase, attempts.boot_time()
        self._beat()

    def _beat(self) -> None:
        self.progress += 1
        heartbeat = Heartbeat(
            attempt=self.spec.attempt, pid=os.getpid(), phase=self.phase, progress=self.progress,
            step=self.model.step, total=self.total, loss=self.loss, eval_loss=None, learning_rate=None, epoch=None,
            tokens_per_second=None, eta_s=None, checkpoint=self.committed, phase_since=self.phase_since,
            beat_at=attempts.boot_time(), written_at=time.time(), boot_id=attempts.boot_id(), waits=self.waits,
        )  # fmt: skip
        try:
            attempts.write_heartbeat(self.folder, heartbeat)
        except DiskError:  # as the real one: a full disk must not end the training
            self.whisper = self.whisper or Beat()
            whispers.say(self.whisper, heartbeat)

    def _report(self, outcome: Outcome, kind: FailureKind | None, message: str, *, charged: bool = False) -> Report:
        return Report(
            attempt=self.spec.attempt, outcome=outcome, kind=kind, message=message, traceback=None, charged=charged,
            step=self.model.step, total=self.total, job_step=self.model.job_step, checkpoint=self.committed,
            loss=self.loss, eval_loss=None, tokens=None, samples=None, notes=[], ended_at=time.time(),
        )  # fmt: skip

    def leave(self) -> ExitCode:
        """Train, leave the report, return the exit code."""
        try:
            report = self.run()
        except Left:
            report = self._report(Outcome.PREEMPTED, None, "asked to leave: saved at a step border")
        except LeftUnsaved as left:
            report = self._report(Outcome.PREEMPTED, None, str(left))
        except Fault as fault:
            report = self._report(Outcome.CRASHED, fault.kind, str(fault), charged=fault.charged)
            report = dataclasses.replace(report, bad_rows=fault.bad_rows)
        except MemoryError:
            self.leaked.clear()
            report = self._report(Outcome.CRASHED, FailureKind.HOST_OOM, "no memory left for the trainer")
        except Exception as error:
            failure = failures.judge(error)
            message = f"{type(error).__name__}: {error}" if failure.kind is FailureKind.CODE_ERROR else failure.message
            report = self._report(Outcome.CRASHED, failure.kind, message)
        self.phase = Phase.EXITING
        self._beat()
        attempts.write_report(self.folder, report)
        if self.options.fault == "hang_at_exit":
            hang()
        return {Outcome.COMPLETED: ExitCode.OK, Outcome.PREEMPTED: ExitCode.BUSY}.get(report.outcome, ExitCode.PROBLEM)


def main(folder: Path) -> ExitCode:
    """Run one attempt under the model's lock."""
    spec = attempts.read_any_spec(folder)
    if isinstance(spec, MergeSpec):
        return simulated_merge.main(folder, spec)
    simulation = Simulation(folder, read_options(os.environ.get(VARIABLE, "")))

    def ask(number: int, frame: FrameType | None) -> None:
        simulation.asked = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, ask)
    signal.signal(signal.SIGUSR2, lambda number, frame: None)
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    lock = files.Lock(simulation.layout.model_lock)
    holder = {"pid": os.getpid(), "attempt": simulation.spec.attempt, "since": time.time()}
    if not FolderLock(simulation.layout.model).acquire() or not lock.acquire(holder=holder):
        print("another trainer holds the model's lock", file=sys.stderr)
        return ExitCode.BUSY
    simulation.owns_model = lock.is_intact
    return simulation.leave()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
