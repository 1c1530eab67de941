"""The picture in words: each fact as a short text, and one line of them all."""

from __future__ import annotations

from overnight.domain.picture import age, iso
from overnight.status import judge
from overnight.status.snapshot import Process, Snapshot

BAR_WIDTH = 24


def headline(shot: Snapshot) -> str:
    """Return the reason of the state, and since when."""
    since = shot.standing.since
    return shot.standing.reason + (f" (since {iso(since)}, {age(shot.at - since)})" if since is not None else "")


def progress_line(shot: Snapshot) -> str:
    """Return the picture as one line: what changes while a job trains."""
    parts = [shot.state.value]
    if shot.job is not None:
        parts.append(f"{shot.job.file} (job {shot.job.id})")
        parts.append(f"step {step_of_total(shot)}")
        parts += [text for text in numbers(shot) if text]
    else:
        parts.append(shot.standing.reason)
        parts.append(f"step {shot.step}")
    waiting = shot.queue["queued"]
    return "  ".join(parts) + (f"  {waiting} queued" if waiting else "")


def counts(shot: Snapshot) -> str:
    """Return the queue in numbers; what never happened is left out, but for the first three."""
    always = ("queued", "running", "succeeded")
    return " · ".join(f"{number} {name}" for name, number in shot.queue.items() if number or name in always)


def bar(step: int, total: int, *, width: int = BAR_WIDTH) -> str:
    """Return a bar of ASCII signs, so that it is right in every terminal and log."""
    done = min(width, width * step // total) if total > 0 else 0
    return "[" + "#" * done + "-" * (width - done) + "]"


def facts(shot: Snapshot) -> list[tuple[str, str]]:
    """Return the picture as pairs of a name and a text; an empty text is not worth a line."""
    share = f" {bar(shot.step, shot.total)} {100 * shot.step // shot.total} %" if is_counted(shot) else ""
    return [
        ("step", step_of_total(shot) + share),
        ("loss", "  ".join(text for text in numbers(shot) if text).removeprefix("loss ")),
        ("job", _job(shot)),
        ("queue", counts(shot)),
        ("next", ", ".join(shot.next_files)),
        ("checkpoint", _checkpoint(shot)),
        ("version", _version(shot)),
        *judge.words(shot.judged),
        ("daemon", _process(shot.daemon, "not running")),
        ("watchdog", _process(shot.watchdog, "not running")),
        ("trainer", _process(shot.trainer, "none")),
    ]


def _version(shot: Snapshot) -> str:
    making = shot.making
    if making is None:
        return shot.version or ""
    of = f", part {making.part} of {making.parts}" if making.parts is not None else ""
    return f"{shot.version or 'none yet'}; the next one is being made: {making.phase}{of} (pid {making.pid})"


def is_counted(shot: Snapshot) -> bool:
    """Return whether it is known where the current job ends; a trainer counts its steps after loading."""
    return shot.total > 0 and (shot.job is None or shot.total > shot.step or shot.job.steps is not None)


def step_of_total(shot: Snapshot) -> str:
    """Return the step, and where the current job ends as far as that is known."""
    return f"{shot.step} of {shot.total}" if is_counted(shot) else str(shot.step)


def numbers(shot: Snapshot) -> list[str]:
    """Return what a trainer measures; an empty text for what is not known."""
    live = shot.heartbeat if shot.attempt is not None else None
    loss, eval_loss = shot.losses
    return [
        f"loss {loss:.4f}" if loss is not None else "",
        f"eval {eval_loss:.4f}" if eval_loss is not None else "",
        f"{live.tokens_per_second:.0f} tokens/s" if live and live.tokens_per_second is not None else "",
        f"{age(live.eta_s)} left" if live and live.eta_s is not None else "",
    ]


def _job(shot: Snapshot) -> str:
    job = shot.job
    if job is None:
        return ""
    start = job.start_step if job.start_step is not None else shot.step
    steps = f", step {max(0, shot.step - start)} of {job.steps}" if job.steps is not None else ""
    return f"{job.id}  {job.file}, {job.priority.value} priority, attempt {job.attempts}{steps}"


def _checkpoint(shot: Snapshot) -> str:
    if shot.checkpoint is None:
        return "none"
    trust = {True: "verified", False: "DAMAGED: overnight verify tells", None: "complete, its content not yet read"}
    return f"{shot.checkpoint.step}, {trust[shot.is_checkpoint_verified]}"


def _process(process: Process | None, absent: str) -> str:
    if process is None:
        return absent
    since = f" since {iso(process.since)}" if process.since is not None else ""
    return f"{process.state}, pid {process.pid if process.pid is not None else 'unknown'}{since}"
