"""``python -m overnight.trainer ATTEMPT_DIR``: first heartbeat before torch is imported, and always a last word.

Exit codes: 0 completed, 75 preempted (saved, asked to leave), 1 crashed. The report outranks them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from overnight.disk import attempts, files
from overnight.disk.folder_lock import FolderLock
from overnight.disk.layout import Layout
from overnight.domain import config
from overnight.domain.attempt import Outcome, Phase, Report, Spec
from overnight.domain.errors import ConfigError, DiskError, ExitCode
from overnight.domain.merge import MergeReport, MergeSpec
from overnight.launchers import processes
from overnight.trainer import environment, failures, faults, merge_words
from overnight.trainer.patience import LONGEST_WAIT_S, LeftUnsaved
from overnight.trainer.pulse import Pulse
from overnight.trainer.run import Run
from overnight.trainer.wishes import SIGNALS, AskedToLeave, Wishes

LOCK_WAIT_S = 20.0
"""For the trainer before us, which may still be dying."""

UNWATCHED_LEAST_S = 90.0
EXIT_CODES = {
    Outcome.COMPLETED: ExitCode.OK,
    Outcome.PREEMPTED: ExitCode.BUSY,
}
_HELD: list[files.Lock | FolderLock] = []


def main(arguments: list[str]) -> int:
    """Run one attempt; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m overnight.trainer ATTEMPT_DIR", file=sys.stderr)
        return ExitCode.USAGE
    folder = Path(arguments[0]).absolute()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    try:
        spec = attempts.read_any_spec(folder)
    except (OSError, ValueError) as error:
        print(f"The attempt in {folder} cannot be read: {error}", file=sys.stderr)
        return ExitCode.PROBLEM
    pulse = Pulse(folder, spec)
    try:
        report = attempt(folder, spec, pulse)
    except AskedToLeave as asked:  # between two lines of the trainer's border
        report = left_early(pulse, asked, spec)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it is leaving, and nothing may keep it from its last word
    return leave(folder, pulse, report)


def attempt(folder: Path, spec: Spec | MergeSpec, pulse: Pulse) -> Report | MergeReport:
    """Do what the spec says; whatever happens, return a report."""
    planned = faults.from_environment(spec.attempt)
    report: Report | MergeReport
    try:
        if isinstance(spec, MergeSpec):
            report = work_on_merge(folder, spec, pulse, planned)
        else:
            report = work(folder, spec, pulse, planned)
        planned.reach("report")
        return report
    except AskedToLeave as asked:
        return left_early(pulse, asked, spec)
    except BaseException as error:  # the trainer's border: nothing may pass without a report
        return crashed(pulse, error, spec)


def left_early(pulse: Pulse, asked: AskedToLeave, spec: Spec | MergeSpec | None = None) -> Report | MergeReport:
    """Return the report of an attempt that was asked to leave when there was nothing to save, or no way to."""
    if isinstance(spec, MergeSpec):
        return merge_words.left(spec, pulse, asked)
    if isinstance(asked, LeftUnsaved):
        return pulse.report(Outcome.PREEMPTED, str(asked))
    return pulse.report(Outcome.PREEMPTED, f"left before the first step: {asked}")


def crashed(pulse: Pulse, error: BaseException, spec: Spec | MergeSpec | None = None) -> Report | MergeReport:
    """Return the report of an attempt that failed; its traceback goes into the log as well."""
    text = "".join(traceback.format_exception(error))
    print(text, file=sys.stderr, flush=True)
    if isinstance(spec, MergeSpec):
        return merge_words.failed(spec, pulse, error, text)
    failure = failures.judge(error)
    report = pulse.report(Outcome.CRASHED, failure.message, kind=failure.kind, traceback=text, charged=failure.charged)
    return dataclasses.replace(report, bad_rows=list(getattr(error, "rows", ())))


def work(folder: Path, spec: Spec, pulse: Pulse, planned: faults.Faults) -> Report:
    """Prepare the ground, take the model's lock, and train."""
    scratch = folder / "output"
    environment.arrange(spec, scratch)
    pulse.beat()
    settings = config.parse(spec.settings)
    wishes = Wishes(
        folder,
        unwatched_limit_s=max(3 * settings.watch.daemon_dead_s, UNWATCHED_LEAST_S),
        daemon_lock=Layout(Path(spec.workspace)).daemon_lock,
    )
    wishes.listen()
    lock = take_lock(spec, pulse, wishes)
    for part in (scratch, scratch / "tmp", scratch / "cache"):
        files.make_directory(part)
    planned.reach("load")
    refuse_early(spec, settings)
    from overnight.trainer import fit  # loads torch: seconds, so not before the first heartbeat

    run = Run(
        spec=spec,
        settings=settings,
        folder=folder,
        scratch=scratch,
        pulse=pulse,
        wishes=wishes,
        faults=planned,
        owns_model=lock.is_intact,
        disk_wait_s=LONGEST_WAIT_S,
    )
    return fit.fit(run)


def work_on_merge(folder: Path, spec: MergeSpec, pulse: Pulse, planned: faults.Faults) -> MergeReport:
    """Prepare the ground, take the model's lock unless whoever started us holds it, and merge."""
    scratch = folder / "output"
    environment.arrange(spec, scratch)
    pulse.beat()
    wishes = Wishes(folder, unwatched_limit_s=spec.unwatched_limit_s)
    wishes.listen()
    if spec.takes_lock:
        take_lock(spec, pulse, wishes)
    for part in (scratch, scratch / "tmp", scratch / "cache"):
        files.make_directory(part)
    planned.reach("load")
    from overnight.trainer import merge  # loads torch, so not before the first heartbeat

    return merge.merge(merge.Task(spec=spec, pulse=pulse, wishes=wishes, faults=planned))


def take_lock(spec: Spec | MergeSpec, pulse: Pulse, wishes: Wishes) -> files.Lock:
    """Take the lock of the one trainer of this model; it is held until the process is gone.

    Raises LockedModelError where another trainer keeps it.
    """
    layout = Layout(Path(spec.workspace))
    lock, folder = files.Lock(layout.model_lock), FolderLock(layout.model)
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "identity": processes.ourselves(),
        "attempt": spec.attempt,
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    deadline = time.monotonic() + LOCK_WAIT_S
    while not take_both(lock, folder, holder):
        if time.monotonic() > deadline:
            other = files.lock_holder(lock.path) or {}
            raise failures.LockedModelError(
                "Another trainer is at work on this model",
                found=f"pid {other.get('pid', 'unknown')}, attempt {other.get('attempt', 'unknown')}",
                expected="one trainer at a time",
                fix="wait for it; work goes on by itself then",
            )
        pulse.beat()
        wishes.obey_at_once()
        time.sleep(0.1)
    _HELD.extend((lock, folder))
    return lock


def take_both(lock: files.Lock, folder: FolderLock, holder: dict[str, object]) -> bool:
    """Take the lock on the model's folder, one through every name and mount of it, and the model's lock; both or none.

    The folder's first: its handle is the lower one, so at our end the kernel lets go of it first, and nobody who finds
    the model's lock free takes us for another workspace's trainer.
    """
    try:
        if not folder.acquire():
            return False
    except FileNotFoundError:  # removed just now: it is made again, and that its checkpoints are gone is told by others
        return lock.acquire(holder=holder)
    if lock.acquire(holder=holder):
        return True
    folder.release()
    return False


def refuse_early(spec: Spec, settings: config.Settings) -> None:
    """Refuse at once what cannot work, before seconds go into loading torch, or hours into a download."""
    if spec.kind != "fit":
        raise ConfigError(f"The spec asks for '{spec.kind}'", expected="'fit'", fix="update the trainer's environment")
    if settings.method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise failures.MissingPartError(
            "Method qlora needs the library bitsandbytes",
            found="it is not installed",
            expected="bitsandbytes beside torch",
            fix="pip install 'overnight[qlora]' into the daemon's environment, or use method lora",
        )
    if settings.method == "qlora" and settings.train.device == "mps":
        raise failures.no_qlora_on_mps()


def leave(folder: Path, pulse: Pulse, report: Report | MergeReport) -> int:
    """Write the last word and return the exit code."""
    with contextlib.suppress(Exception):
        pulse.flush()
        pulse.enter(Phase.EXITING)
    with contextlib.suppress(Exception):
        scratch = folder / "output"
        if scratch.is_dir():
            files.remove_tree(scratch, inside=folder)  # also makes room for the report on a full disk
    print(f"{report.outcome}: {report.message}", flush=True)
    for last_word in (report, dataclasses.replace(report, traceback=None)):
        try:
            attempts.write_report(folder, last_word)
        except (OSError, DiskError, ValueError) as error:
            print(f"the report could not be written: {error}", file=sys.stderr, flush=True)
        else:
            return EXIT_CODES.get(report.outcome, ExitCode.PROBLEM)
    return ExitCode.PROBLEM


if __name__ == "__main__":
    _code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)  # no library may hang or crash on its way out, after the last word
