"""What the facts of a workspace and its machine mean: one check each, with a verdict, words and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    WARN = "warn"  # work goes on, somebody should look at it
    FAIL = "fail"  # work does not go on, or something is lost with the next fault
    SKIP = "skip"  # there is nothing to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check and what it found."""

    name: str
    status: Status
    message: str
    fix: str | None = None
    can_be_fixed: bool = False  # by ``doctor --fix``, which never does what could lose anything


def passed(name: str, message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, status=Status.PASS, message=message)


def warned(name: str, message: str, *, fix: str, can_be_fixed: bool = False) -> Check:
    """Return a check that found something to look at."""
    return Check(name=name, status=Status.WARN, message=message, fix=fix, can_be_fixed=can_be_fixed)


def failed(name: str, message: str, *, fix: str, can_be_fixed: bool = False) -> Check:
    """Return a check that found something that must be mended."""
    return Check(name=name, status=Status.FAIL, message=message, fix=fix, can_be_fixed=can_be_fixed)


def skipped(name: str, message: str) -> Check:
    """Return a check that had nothing to look at."""
    return Check(name=name, status=Status.SKIP, message=message)


def is_ok(checks: Iterable[Check]) -> bool:
    """Return whether no check failed."""
    return all(check.status is not Status.FAIL for check in checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Who lives, and who should."""

    should_run: bool  # up was wished, down was not
    daemon_pid: int | None  # None where it is not there; 0 where it does not say who it is
    quiet_s: float | None  # since the daemon last said something; None where it never did
    dead_s: float  # it is dead or hung after so long
    watchdog_pid: int | None
    trainer_pid: int | None
    attempt: str | None  # the open one
    beat_age_s: float | None  # of its heartbeat
    beat_limit_s: float
    phase: str
    paused: str | None  # why


def judge_daemon(life: Life) -> Check:
    """Judge the loop: idle, paused and never started are healthy; dead and silent are not."""
    name = "daemon"
    if life.daemon_pid is None:
        if life.should_run:
            return failed(
                name, "it should run and does not", fix="overnight up starts it; overnight logs daemon tells why"
            )
        return passed(name, "not running, and nobody asked for it")
    if life.quiet_s is not None and life.quiet_s > life.dead_s:
        return failed(
            name,
            f"pid {life.daemon_pid or 'unknown'} lives and has said nothing for {life.quiet_s:.0f} s",
            fix="the watchdog ends and restarts it; where there is none: overnight down --now, then overnight up",
        )
    rest = f", paused: {life.paused}" if life.paused else ""
    return passed(name, f"running (pid {life.daemon_pid or 'unknown'}){rest}")


def judge_watchdog(life: Life) -> Check:
    """Judge the guard of the loop."""
    name = "watchdog"
    if life.watchdog_pid is not None:
        return passed(name, f"running (pid {life.watchdog_pid or 'unknown'})")
    if life.daemon_pid is not None:
        return warned(name, "not running; the daemon starts it again within seconds", fix="look again in a minute")
    if life.should_run:
        return failed(name, "it should run and does not: nobody brings the daemon back", fix="overnight up")
    return passed(name, "not running, and nobody asked for it")


def judge_heartbeat(life: Life) -> Check:
    """Judge the sign of life of the trainer."""
    name = "heartbeat"
    if life.attempt is None:
        return skipped(name, "no attempt is open")
    if life.beat_age_s is None:
        return passed(name, f"attempt {life.attempt} has just been started")
    told = f"attempt {life.attempt} ({life.phase}) was last heard {life.beat_age_s:.0f} s ago"
    if life.beat_age_s > life.beat_limit_s:
        return failed(
            name, f"{told}, the limit is {life.beat_limit_s:.0f} s",
            fix="the daemon ends and restarts it; where none runs: overnight up",
        )  # fmt: skip
    return passed(name, told)


def judge_orphans(life: Life) -> Check:
    """Judge whether something works that nobody looks after."""
    name = "orphans"
    if life.trainer_pid is None:
        return passed(name, "no trainer is left alone")
    who = f"trainer pid {life.trainer_pid or 'unknown'}"
    if life.daemon_pid is None:
        return failed(
            name, f"{who} works and no daemon looks after it",
            fix="overnight up adopts it; overnight down ends it; left alone it saves and leaves by itself",
        )  # fmt: skip
    if life.attempt is None:
        return warned(name, f"{who} holds the model without an open attempt", fix="overnight down ends it")
    return passed(name, f"{who} belongs to attempt {life.attempt}")


def judge_disk(*, free_bytes: int, needed_bytes: float, checkpoint_bytes: int) -> Check:
    """Judge the free space against the setting, and against the size of the next save."""
    free = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes < needed_bytes:
        return failed(
            "disk", f"{free}, disk.min_free_gb is {needed_bytes / 1e9:g}: nothing is started",
            fix="free space; overnight cleanup --dry-run shows what may go",
        )  # fmt: skip
    if free_bytes < 2 * checkpoint_bytes:
        return failed(
            "disk", f"{free}, and a checkpoint takes {checkpoint_bytes / 1e9:.1f} GB: the next save may not fit",
            fix="free space; overnight cleanup --dry-run shows what may go",
        )  # fmt: skip
    return passed("disk", free)


def judge_inodes(*, free: int, total: int) -> Check:
    """Judge how many files the file system still takes; some count none."""
    if total == 0:
        return skipped("inodes", "this file system does not count them")
    if free < 1000:
        return failed("inodes", f"{free} of {total} are free", fix="remove small files on that file system")
    if free < total / 50:
        return warned("inodes", f"{free} of {total} are free", fix="remove small files on that file system")
    return passed("inodes", f"{free} of {total} are free")


def judge_memory(*, available_bytes: int, total_bytes: int) -> Check:
    """Judge the memory that is left."""
    told = f"{available_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB available"
    if available_bytes < min(0.5e9, total_bytes / 10):
        return warned("memory", f"{told}: a trainer may be killed for want of it", fix="end other programs")
    return passed("memory", told)


def judge_clock(*, now: float, newest: float | None) -> Check:
    """Judge the wall clock against the newest thing that was ever written down."""
    if now < 1_704_067_200:  # 2024
        return failed("clock", "it stands before the year 2024", fix="set it (timedatectl set-ntp true)")
    if newest is not None and newest > now + 60:
        return warned(
            "clock", f"the history holds something from {newest - now:.0f} s in the future: it was set back",
            fix="set it (timedatectl set-ntp true); no retry and no cleanup depends on it",
        )  # fmt: skip
    return passed("clock", "later than everything that was written down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What the driver's own tool said."""

    is_there: bool  # the tool
    trouble: str | None  # why it gave no list: it hung, it failed
    names: list[str]


def judge_device(gpus: Gpus, *, wanted: str) -> Check:
    """Judge the device: no GPU is no failure, unless the settings ask for one."""
    if gpus.trouble is not None:
        return failed("device", gpus.trouble, fix="the driver is at fault: see dmesg; a reboot often helps")
    if gpus.names:
        return passed("device", ", ".join(gpus.names))
    if wanted == "cuda":
        return failed(
            "device", "train.device is cuda, and no NVIDIA GPU is here",
            fix="bring it back, or overnight config set train.device auto",
        )  # fmt: skip
    return passed("device", "no NVIDIA GPU: training uses what torch finds, else the CPU")


def judge_copies(
    place: str, *, verified: list[str], damaged: dict[str, str], unread: int, trouble: str | None
) -> Check:
    """Judge the copies in the second place: a damaged one counts as none."""
    if trouble is not None:
        return failed(
            "backups", trouble, fix="mount it, or overnight config set backup.path; copies go on by themselves"
        )
    if damaged:
        name, reason = next(iter(damaged.items()))
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        return failed(
            "backups", f"the copy of {name} in {place} is damaged and counts as none: {reason}{more}",
            fix="while the original is whole, the daemon copies it again by itself; then remove what is damaged",
        )  # fmt: skip
    if not verified and not unread:
        return warned("backups", f"no copy in {place} yet", fix="copies are made while the daemon runs")
    told = f"{len(verified)} verified in {place}" + (f", {unread} not read lately" if unread else "")
    return passed("backups", f"{told}; the last is {verified[-1]}" if verified else told)


def judge_backups(*, verified: int, keep: int) -> Check:
    """Judge how many checkpoints there are to fall back to."""
    if verified == 0:
        return skipped("backups", "no checkpoint yet")
    if verified == 1 and keep > 1:
        return warned(
            "backups", "one checkpoint only: damaged, it leaves nothing to go back to",
            fix="more come as training goes on; a copy of current_model/ on another disk is safest",
        )  # fmt: skip
    if verified == 1:
        return warned(
            "backups", "checkpoint.keep is 1: one checkpoint only", fix="overnight config set checkpoint.keep 5"
        )
    return passed("backups", f"{verified} checkpoints to go back to, all on this disk")
