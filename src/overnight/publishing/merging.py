"""The merge, run in a process of its own: told what to do, listened to, ended where it hangs or is not wanted.

A process that outlived whoever had started it is ended before the next one: its handle is kept beside its orders.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from overnight.disk import attempts, crashes, files
from overnight.disk.attempts import Notice, Wish
from overnight.disk.layout import Layout
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome
from overnight.domain.config import Settings
from overnight.domain.errors import DiskError, FailedError, OvernightError
from overnight.domain.merge import MergeReport, MergeSpec
from overnight.launchers.base import Exited, Launcher
from overnight.launchers.choice import launcher_of

POLL_S = 0.05
TOUCH_S = 5.0
LEAVE_S = 10.0
"""So long a merge that is not wanted any more is given to leave by itself."""

HANDLE = "handle.json"


def run(
    layout: Layout, spec: MergeSpec, settings: Settings, *, tell: Callable[[Heartbeat], None] = lambda beat: None
) -> MergeReport:
    """Run a merge to its end and return its last word. Raises OvernightError with the words of what went wrong."""
    folder = layout.consolidation
    files.make_directory(folder)
    attempts.write_spec(folder, spec)
    attempts.touch_watched(folder)
    launcher = launcher_of(settings.launcher.kind)
    handle = launcher.start(
        folder, workspace=layout.root, record=lambda text: files.write_json_durably(folder / HANDLE, {"handle": text})
    )
    try:
        exited = _watch(layout, launcher, handle, limit_s=settings.watch.no_progress_s, tell=tell)
    except BaseException:
        _end(layout, launcher, handle)
        raise
    report = attempts.read_merge_report(folder)
    if report is None:
        raise _died(layout, exited)
    if report.outcome is not Outcome.COMPLETED:
        raise _failed(report)
    return report


def end_leftover(layout: Layout) -> None:
    """End a merge whose starter is gone, and remove what it was told and said. Under the lock of resting.py."""
    folder = layout.consolidation
    if not folder.is_dir():
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        handle = str(files.read_json(folder / HANDLE)["handle"])
        launcher = launcher_of("local")
        deadline = time.monotonic() + LEAVE_S
        launcher.kill(handle)
        while not isinstance(launcher.poll(handle), Exited) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    files.remove_tree(folder, inside=layout.state)


def _watch(
    layout: Layout, launcher: Launcher, handle: str, *, limit_s: float, tell: Callable[[Heartbeat], None]
) -> Exited:
    """Wait for the end of a merge that moves; each move counts from the last one."""
    folder = layout.consolidation
    moved_at = touched_at = time.monotonic()
    progress = None
    while True:
        found = launcher.poll(handle)
        beat = attempts.read_heartbeat(folder)
        now = time.monotonic()
        if beat is not None and beat.progress != progress:
            progress, moved_at = beat.progress, now
            tell(beat)
        if isinstance(found, Exited):
            return found
        if now - touched_at >= TOUCH_S:
            attempts.touch_watched(folder)
            touched_at = now
        if now - moved_at > limit_s:
            raise FailedError(
                "The merge hangs and was ended",
                found=f"no move for {limit_s:.0f} s",
                expected="one part after the other",
                fix=f"see {folder / 'trainer.log'}; watch.no_progress_s is the limit",
                code="hang",
            )
        time.sleep(POLL_S)


def _end(layout: Layout, launcher: Launcher, handle: str) -> None:
    """Ask a merge to leave, then end it."""
    with contextlib.suppress(OSError, OvernightError):
        attempts.write_notice(
            layout.consolidation, Notice(wish=Wish.SAVE_AND_LEAVE, reason="the version is not wanted any more")
        )
        launcher.stop(handle)
    deadline = time.monotonic() + LEAVE_S
    while not isinstance(launcher.poll(handle), Exited):
        if time.monotonic() > deadline:
            launcher.kill(handle)
            deadline = time.monotonic() + LEAVE_S
        time.sleep(POLL_S)


def _failed(report: MergeReport) -> OvernightError:
    problem = report.problem
    kind = DiskError if report.failure is FailureKind.DISK_FULL else FailedError
    return kind(
        problem.what if problem is not None else report.message,
        found=problem.found if problem is not None else None,
        expected=problem.expected if problem is not None else None,
        fix=problem.fix if problem is not None else "nothing was changed; see logs and try again",
        code=problem.code if problem is not None else "merge",
    )


def _died(layout: Layout, exited: Exited) -> OvernightError:
    how = f"signal {exited.signal}" if exited.signal is not None else f"exit code {exited.exit_code}"
    log = crashes.read_tail(layout.consolidation / crashes.LOG, crashes.LOG_TAIL_BYTES)
    tail = crashes.safe_text(log).strip().splitlines()[-1:]
    return FailedError(
        "The merge died without a word; nothing was changed",
        found="; ".join([how, *tail]),
        expected="a report",
        fix="try again; where it is killed for want of memory, it needs about what the base model takes twice",
        code="merge",
    )
