"""The truth table of the health check: idle and paused are healthy; dead, silent, alone and full are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain import diagnosis
from overnight.domain.diagnosis import Gpus, Life, Status

P, W, F, S = Status.PASS, Status.WARN, Status.FAIL, Status.SKIP

IDLE = Life(
    should_run=True, daemon_pid=1, quiet_s=0.3, dead_s=30.0, watchdog_pid=2, trainer_pid=None, attempt=None,
    beat_age_s=None, beat_limit_s=1860.0, phase="starting", paused=None,
)  # fmt: skip
TRAINING = replace(IDLE, trainer_pid=3, attempt="000001-01", beat_age_s=0.5, phase="training")
NOBODY = replace(IDLE, should_run=False, daemon_pid=None, quiet_s=None, watchdog_pid=None)
DEAD = replace(NOBODY, should_run=True)

TABLE = {
    "idle": (IDLE, (P, P, S, P)),
    "never started": (NOBODY, (P, P, S, P)),
    "paused": (replace(IDLE, paused="paused by the operator"), (P, P, S, P)),
    "training": (TRAINING, (P, P, P, P)),
    "an attempt just started": (replace(TRAINING, beat_age_s=None, trainer_pid=None), (P, P, P, P)),
    "a long evaluation": (replace(TRAINING, beat_age_s=1700.0, phase="evaluating"), (P, P, P, P)),
    "dead": (DEAD, (F, F, S, P)),
    "dead, its trainer alone": (replace(DEAD, trainer_pid=3, attempt="000001-01", beat_age_s=5.0), (F, F, P, F)),
    "ended, a trainer left": (replace(NOBODY, trainer_pid=3), (P, P, S, F)),
    "hung daemon": (replace(IDLE, quiet_s=300.0), (F, P, S, P)),
    "no watchdog": (replace(IDLE, watchdog_pid=None), (P, W, S, P)),
    "a stale heartbeat": (replace(TRAINING, beat_age_s=4000.0), (P, P, F, P)),
    "a trainer without an attempt": (replace(IDLE, trainer_pid=3), (P, P, S, W)),
    "a lock that names nobody": (replace(TRAINING, daemon_pid=0, watchdog_pid=0, trainer_pid=0), (P, P, P, P)),
}


@pytest.mark.parametrize("state", TABLE)
def test_each_state_of_the_work_has_its_verdicts(state: str) -> None:
    life, expected = TABLE[state]
    checks = [
        diagnosis.judge_daemon(life), diagnosis.judge_watchdog(life), diagnosis.judge_heartbeat(life),
        diagnosis.judge_orphans(life),
    ]  # fmt: skip
    assert tuple(check.status for check in checks) == expected
    assert all(check.message for check in checks)
    assert all(check.fix for check in checks if check.status in (W, F)), "a problem without what to do"
    assert diagnosis.is_ok(checks) is (F not in expected)


GB = 10**9


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (diagnosis.judge_disk(free_bytes=80 * GB, needed_bytes=2 * GB, checkpoint_bytes=GB), P),
        (diagnosis.judge_disk(free_bytes=1 * GB, needed_bytes=2 * GB, checkpoint_bytes=0), F),
        (diagnosis.judge_disk(free_bytes=5 * GB, needed_bytes=2 * GB, checkpoint_bytes=3 * GB), F),
        (diagnosis.judge_disk(free_bytes=0, needed_bytes=0, checkpoint_bytes=0), P),
        (diagnosis.judge_inodes(free=10**6, total=10**7), P),
        (diagnosis.judge_inodes(free=10_000, total=10**7), W),
        (diagnosis.judge_inodes(free=3, total=10**7), F),
        (diagnosis.judge_inodes(free=0, total=0), S),
        (diagnosis.judge_memory(available_bytes=8 * GB, total_bytes=16 * GB), P),
        (diagnosis.judge_memory(available_bytes=GB // 10, total_bytes=16 * GB), W),
        (diagnosis.judge_clock(now=1.8e9, newest=1.79e9), P),
        (diagnosis.judge_clock(now=1.8e9, newest=None), P),
        (diagnosis.judge_clock(now=1.8e9, newest=1.8e9 + 4000), W),
        (diagnosis.judge_clock(now=300.0, newest=None), F),
        (diagnosis.judge_device(Gpus(is_there=False, trouble=None, names=[]), wanted="auto"), P),
        (diagnosis.judge_device(Gpus(is_there=False, trouble=None, names=[]), wanted="cpu"), P),
        (diagnosis.judge_device(Gpus(is_there=False, trouble=None, names=[]), wanted="cuda"), F),
        (diagnosis.judge_device(Gpus(is_there=True, trouble="it hangs", names=[]), wanted="auto"), F),
        (diagnosis.judge_device(Gpus(is_there=True, trouble=None, names=["H100"]), wanted="cuda"), P),
        (diagnosis.judge_backups(verified=0, keep=5), S),
        (diagnosis.judge_backups(verified=1, keep=5), W),
        (diagnosis.judge_backups(verified=1, keep=1), W),
        (diagnosis.judge_backups(verified=3, keep=5), P),
        (diagnosis.judge_copies("/x", verified=[], damaged={}, unread=0, trouble="not mounted"), F),
        (diagnosis.judge_copies("/x", verified=["v001"], damaged={"v002": "differs"}, unread=0, trouble=None), F),
        (diagnosis.judge_copies("/x", verified=[], damaged={}, unread=0, trouble=None), W),
        (diagnosis.judge_copies("/x", verified=["v001"], damaged={}, unread=1, trouble=None), P),
    ],
)
def test_each_figure_of_the_machine_has_its_verdict(check: diagnosis.Check, expected: Status) -> None:
    assert check.status is expected
    assert check.message
    assert check.fix or expected in (P, S)
