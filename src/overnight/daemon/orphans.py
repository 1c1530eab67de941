"""A trainer that lives although its attempt has ended: nobody watches it, and it holds the model. It is ended.

Only one that is ours beyond doubt: the attempt that the lock names is in our history, it has ended, and the process
that its handle identifies (pid, start time, boot) is alive. Anybody else who holds the lock is waited for, and never
signalled.
"""

from __future__ import annotations

from typing import Any

from overnight.daemon import monitor
from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.domain.attempt import AttemptState
from overnight.launchers.base import Running


def end_orphan(context: Context, holder: dict[str, Any], now: Moment) -> bool:
    """End whoever holds the model's lock where it is a leftover of ours; return whether it is."""
    attempt = queue.find_attempt(context.connection, str(holder.get("attempt", "")))
    if attempt is None or attempt.state is not AttemptState.ENDED or attempt.handle is None:
        return False
    launcher = monitor.launcher_of(context, attempt)
    found = launcher.poll(attempt.handle)
    if not isinstance(found, Running) or found.pid != holder.get("pid"):
        return False
    message = f"the trainer of attempt {attempt.id} (pid {found.pid}) lives though its attempt has ended: it is killed"
    context.tell("orphan", message, kind="attempt.orphan", level="error", at=now.unix, attempt=attempt.id)
    launcher.kill(attempt.handle)
    return True
