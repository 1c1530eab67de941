"""What an ended attempt died of: which evidence is believed before which."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from overnight.domain.attempt import FailureKind, Outcome, Report
from overnight.domain.facts import Facts, in_words, memory_held
from overnight.domain.failure import EndedBy, Evidence, classify

KILLED_LINE = "Memory cgroup out of memory: Killed process 71 (python) total-vm:900kB, anon-rss:512kB, file-rss:0kB"


def seen(**changes: object) -> Evidence:
    evidence = Evidence(
        report=None, exit_code=None, signal=None, launched=True, heard=True, ended_by=EndedBy.ITSELF, reason=""
    )
    return replace(evidence, **changes)  # type: ignore[arg-type]


def reported(kind: FailureKind) -> Report:
    return Report(
        attempt="000001-01", outcome=Outcome.CRASHED, kind=kind, message="it failed", traceback=None, charged=False,
        step=3, total=9, job_step=3, checkpoint=None, loss=None, eval_loss=None, tokens=None, samples=None, notes=[],
        ended_at=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "facts",
    [Facts(oom_kills=1), Facts(kernel_log=(KILLED_LINE,)), Facts(machine_oom_kills=1)],
    ids=["cgroup", "kernel log", "machine"],
)
@pytest.mark.parametrize("end", [{"signal": signal.SIGKILL}, {"exit_code": 137}, {}], ids=["KILL", "137", "adopted"])
def test_a_kill_that_the_kernel_owns_up_to_is_host_oom(facts: Facts, end: dict[str, int]) -> None:
    ending = classify(seen(facts=facts, **end))
    assert (ending.outcome, ending.kind) == (Outcome.CRASHED, FailureKind.HOST_OOM)
    assert "want of memory" in ending.reason


def test_an_anonymous_kill_stays_one_whatever_happened_to_others() -> None:
    others = Facts(oom_kills=0, machine_oom_kills=3)
    assert classify(seen(signal=signal.SIGKILL, facts=others)).kind is FailureKind.KILLED_BY_SIGNAL
    assert classify(seen(signal=signal.SIGSEGV, facts=Facts(oom_kills=1))).kind is FailureKind.SEGFAULT


def test_our_own_kill_of_one_that_was_asked_to_leave_is_no_memory_kill() -> None:
    ending = classify(seen(signal=signal.SIGKILL, ended_by=EndedBy.WISH, facts=Facts(oom_kills=1)))
    assert ending.outcome is Outcome.PREEMPTED


def test_a_helper_killed_for_want_of_memory_explains_the_report_of_its_death() -> None:
    memory = Facts(oom_kills=1)
    assert classify(seen(report=reported(FailureKind.MULTIPROCESSING), facts=memory)).kind is FailureKind.HOST_OOM
    assert classify(seen(report=reported(FailureKind.NAN_LOSS), facts=memory)).kind is FailureKind.NAN_LOSS


@pytest.mark.parametrize(
    ("number", "facts", "kind", "word"),
    [
        (signal.SIGXFSZ, Facts(), FailureKind.DISK_FULL, "limit on file sizes"),
        (signal.SIGXCPU, Facts(), FailureKind.KILLED_BY_SIGNAL, "processor time"),
        (signal.SIGBUS, Facts(), FailureKind.SEGFAULT, "native code"),
        (signal.SIGBUS, Facts(free_bytes=0), FailureKind.DISK_FULL, "disk is full"),
        (signal.SIGABRT, Facts(), FailureKind.KILLED_BY_SIGNAL, "SIGABRT"),
        (signal.SIGABRT, Facts(kernel_log=("NVRM: Xid (PCI:0): 79, pid=7",)), FailureKind.GPU_HARDWARE, "Xid"),
        (signal.SIGILL, Facts(), FailureKind.KILLED_BY_SIGNAL, "SIGILL"),
    ],
)
def test_a_signal_is_told_with_what_the_kernel_says_of_it(
    number: int, facts: Facts, kind: FailureKind, word: str
) -> None:
    ending = classify(seen(signal=number, facts=facts))
    assert ending.kind is kind
    assert word in ending.reason


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (Facts(free_bytes=4096), "full"),
        (Facts(free_bytes=10**9, free_inodes=0), "inodes"),
        (Facts(free_bytes=10**9, is_read_only=True), "read-only"),
    ],
)
def test_an_end_without_a_report_on_a_disk_that_takes_none_is_the_disk_s(facts: Facts, word: str) -> None:
    ending = classify(seen(exit_code=1, facts=facts))
    assert ending.kind is FailureKind.DISK_FULL
    assert word in ending.reason


def test_the_log_is_asked_only_where_kernel_and_report_are_silent() -> None:
    told = {"log_kind": FailureKind.CUDA_ERROR, "log_line": "CUDA error: an illegal memory access"}
    assert classify(seen(signal=signal.SIGABRT, **told)).kind is FailureKind.CUDA_ERROR
    assert classify(seen(exit_code=1, **told)).kind is FailureKind.CUDA_ERROR
    assert classify(seen(signal=signal.SIGKILL, facts=Facts(oom_kills=2), **told)).kind is FailureKind.HOST_OOM
    assert classify(seen(signal=signal.SIGTERM, **told)).kind is FailureKind.KILLED_BY_SIGNAL
    assert classify(seen(exit_code=0, **told)).kind is FailureKind.CODE_ERROR


def test_a_machine_that_was_started_again_explains_a_trainer_that_is_gone() -> None:
    ending = classify(seen(facts=Facts(booted_at=50.0)))
    assert (ending.outcome, ending.kind) == (Outcome.LOST, None)
    assert "power cut" in ending.reason


def test_the_memory_held_is_the_most_that_anybody_saw() -> None:
    assert memory_held(Facts()) is None
    assert memory_held(Facts(peak_bytes=1000, kernel_log=(KILLED_LINE,))) == 512 * 1024
    assert memory_held(Facts(peak_bytes=10**9, kernel_log=(KILLED_LINE,))) == 10**9


def test_facts_become_lines_of_evidence() -> None:
    lines = in_words(Facts(oom_kills=1, free_bytes=5 * 10**9, limits={"file_size": 4096}, was_unwatched=True))
    assert "killed for want of memory in its cgroup since the launch: 1" in lines
    assert "free on the disk: 5000.0 MB" in lines
    assert "limit on file size: 4096" in lines
