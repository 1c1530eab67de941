"""Seeing that claimed files are judged: by a process of its own, one at a time, again where something hindered it."""

from __future__ import annotations

import signal

from overnight.daemon.context import Context, Moment
from overnight.disk import claims, files
from overnight.disk.layout import Layout
from overnight.domain.names import safe_name
from overnight.launchers import beats, guards, processes
from overnight.launchers.base import LaunchError

SCHEMA = 1
LONGEST_PAUSE_S = 60.0
LONGEST_LOOK_S = 2.0
"""What the time between two looks may count: after a longer gap it was the loop that stood still."""


def report_not_taken(layout: Layout, name: str, message: str, *, at: float) -> bool:
    """Write beside the rejected files why a name is not taken; return whether that is news."""
    path = layout.rejected / f"{safe_name(name)}.report.json"
    try:
        if files.read_json(path).get("reason") == message:
            return False
    except (OSError, ValueError, AttributeError):
        pass  # there is none yet, or none of ours
    files.write_json_atomically(path, {"schema": SCHEMA, "file": safe_name(name), "reason": message, "at": at})
    return True


def judge_claimed(context: Context, now: Moment) -> None:
    """Start the process that judges claimed files, where there are any and none is at it."""
    child = context.helpers.get("intake")
    waiting = claims.pending(context.layout)
    if child is not None:
        code = child.poll()
        if code is None:
            _end_hung(context, child.pid, now)
            return
        if (ear := context.memory.pop("intake_ear", None)) is not None:
            ear.close()
        del context.helpers["intake"]
        _note_end(context, code, waiting, now)
    if not waiting or context.config_problem is not None or context.signals:
        return
    if waiting == context.memory.get("judged") and now.boot < context.memory.get("judge_at", 0.0):
        return
    try:
        context.helpers["intake"] = guards.start_intake(context.layout)
    except LaunchError as error:
        context.tell("intake", f"the intake cannot be started: {error.found}", kind="intake.failed", at=now.unix)
        _pause(context, waiting, now)


def _end_hung(context: Context, pid: int, now: Moment) -> None:
    """Kill an intake that neither computes nor waits for the disk: its claims are judged by the next one."""
    identity = processes.identify(pid)
    if identity is None:
        return
    ear: beats.Ear | None = context.memory.get("intake_ear")
    if ear is None or ear.identity != identity:
        ear = context.memory["intake_ear"] = beats.WorkEar(identity, longest_s=LONGEST_LOOK_S)
    verdict = ear.judge(at=now.boot, limit_s=context.limits.watch.daemon_dead_s)
    if verdict is not None and verdict.is_hung:
        told = f"the intake (pid {pid}) is killed: {verdict.reason}"
        context.tell("intake hung", told, kind="intake.hung", level="error", at=now.unix)
        processes.send(identity, signal.SIGKILL)


def _note_end(context: Context, code: int, waiting: list[str], now: Moment) -> None:
    if code != 0:
        message = f"the intake ended with {'exit code' if code > 0 else 'signal'} {abs(code)}; it is started again"
        context.tell("intake", message, kind="intake.failed", at=now.unix)
    if not waiting:
        context.forget("intake")
    if waiting == context.memory.get("judged") or code != 0:
        _pause(context, waiting, now)
    else:  # it took what there was; what came since is taken at once, what could not be, once more
        context.memory["judged"], context.memory["judge_pause"] = waiting, 0.0
        context.memory["judge_at"] = now.boot + 1.0


def _pause(context: Context, waiting: list[str], now: Moment) -> None:
    """Try the same claims again, later and later."""
    pause_s = min(LONGEST_PAUSE_S, max(1.0, 2 * context.memory.get("judge_pause", 0.0)))
    context.memory["judged"], context.memory["judge_pause"] = waiting, pause_s
    context.memory["judge_at"] = now.boot + pause_s
