"""A command that gives way to a training: it works in a session of its own, and its shell sees no difference.

The process that the shell started only waits: it passes signals on, stops and goes on with the command, and ends as the
command ended. See launchers/humble.py for why a nice value is not enough.
"""

from __future__ import annotations

import os
import time

from overnight.launchers import humble

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to load than all the rest of this
    import signal
    from typing import Never
else:
    import _signal as signal  # the same with plain numbers: to make enums of them takes milliseconds

NICENESS = 10
SESSION_NICENESS = 19
PATIENCE_S = 3.0
"""So long it gives way wholly; then it takes its fair share: on a machine that is never idle it has to end too."""

AGAIN_S = 0.5
FOR_EVER_S = 3600.0
PASSED_ON = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
HEARD = PASSED_ON | {signal.SIGCHLD, signal.SIGTSTP}


def step_aside() -> None:
    """Give way from here on. Where sessions are weighed, the caller goes on as a child in a session of its own."""
    humble.be_nice(NICENESS)
    if not humble.are_sessions_weighed():
        humble.be_preempted()
        return
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        child = os.fork()
    except OSError:  # no more processes: then as it is
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    if child:
        _wait(child)
    os.setsid()
    humble.weigh_session(os.getpid(), niceness=SESSION_NICENESS)
    humble.be_preempted()
    humble.be_idle()
    humble.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int) -> Never:
    """Wait for the command and end as it ended. HEARD is blocked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored nobody could tell how the command ended
    patience_ends_at: float | None = time.monotonic() + PATIENCE_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _end_as(status)
        left = patience_ends_at - time.monotonic() if patience_ends_at is not None else FOR_EVER_S
        if left <= 0:
            is_taken = humble.weigh_session(child, niceness=0)
            patience_ends_at = None if is_taken else time.monotonic() + AGAIN_S
            continue
        told = signal.sigtimedwait(HEARD, left)
        if told is None or told.si_signo == signal.SIGCHLD:
            continue
        if told.si_signo == signal.SIGTSTP:
            os.kill(child, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
        else:
            os.kill(child, told.si_signo)


def _end_as(status: int) -> Never:
    """End with an exit code, or by the signal that ended the command."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    if -code not in (signal.SIGKILL, signal.SIGSTOP):  # they cannot be caught: nothing to let go
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os.kill(os.getpid(), -code)
    os._exit(128 - code)  # it was blocked by whoever started us
