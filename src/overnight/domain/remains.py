"""What is known of the work where its database is lost: from what trainers were told and said, and where files lie.

Nothing is guessed. What was trained to its end stays so, what was begun goes on where it stood, what never was begun
waits; what nobody can tell is not queued, and where that would touch a begun job all of it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from overnight.domain.attempt import Attempt, AttemptState, FailureKind, Outcome
from overnight.domain.errors import OvernightError
from overnight.domain.job import Job, JobState, Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one attempt left: what it was told, and its last word."""

    attempt: str
    number: int
    job: int
    dataset: str
    start_step: int
    settings: dict[str, object]
    created_at: float
    left_out: list[int]
    outcome: Outcome | None  # None: it left no last word
    kind: FailureKind | None
    charged: bool
    message: str
    last_step: int | None
    total: int | None  # global step at which its job ends
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What the manifest of a whole checkpoint says."""

    step: int
    job: int
    job_step: int
    job_total: int
    start_step: int
    dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A file in the folders for people."""

    folder: str  # "waiting", "processing", "done", "failed", "rejected"
    name: str
    sha256: str
    at: float  # unix seconds: when it came there
    job: int | None = None  # as the report beside it says
    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A dataset in the store."""

    dataset: str
    sha256: str  # of the file as it was given; "" where nobody can tell
    examples: int
    at: float  # unix seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """All that is left."""

    traces: list[Trace]
    saved: list[Saved]
    papers: list[Paper]
    stored: list[Stored]
    unreadable: list[str]  # attempts of which nobody can tell what they were told
    paused: str | None = None  # the reason, where the loop last said that it was paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The work as it can be told."""

    jobs: list[Job]
    attempts: list[Attempt]
    left_out: dict[int, list[int]]  # rows of a job that are not trained
    committed: int | None  # the highest step that ever was committed, as far as is known
    paused: str | None
    notes: list[str]


OPEN = ("waiting", "processing")
ENDED_PAPERS = {state.value for state in (JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED, JobState.REJECTED)}


def rebuild(remains: Remains, *, now: float) -> Rebuilt:
    """Return jobs and attempts as they were. Raises OvernightError where that cannot be told exactly."""
    _require_exact(remains)
    table = _Table(remains, now=now)
    for job in sorted(table.known):
        table.add_known(job)
    table.add_done()
    table.add_waiting()
    table.add_unexplained()
    committed = [one.step for one in remains.saved]
    return Rebuilt(
        jobs=table.jobs,
        attempts=[_attempt(trace, now=now) for trace in remains.traces],
        left_out={trace.job: trace.left_out for trace in remains.traces if trace.left_out},
        committed=max(committed, default=_told_step(remains.traces)),
        paused=remains.paused,
        notes=table.notes,
    )


def _told_step(traces: Iterable[Trace]) -> int | None:
    """Return a step that trainers speak of, where no checkpoint is left: it must not look as if none ever was."""
    steps = [trace.last_step for trace in traces if trace.outcome is Outcome.COMPLETED and trace.last_step is not None]
    return max([*steps, *(trace.start_step for trace in traces if trace.start_step > 0)], default=None)


def _require_exact(remains: Remains) -> None:
    told = {trace.job for trace in remains.traces} | {
        paper.job for paper in remains.papers if paper.state in ENDED_PAPERS and paper.job is not None
    }
    finished = {one.job for one in remains.saved if one.job_step >= one.job_total}
    for attempt in remains.unreadable:
        if int(attempt.partition("-")[0]) not in told | finished:
            raise _refused(f"nobody can tell what attempt {attempt} was to train: its spec.json cannot be read")
    newest = max(remains.saved, key=lambda one: one.step, default=None)
    if newest is not None and newest.job_step < newest.job_total and newest.job not in told:
        raise _refused(f"checkpoint-{newest.step} is of job {newest.job}, whose settings nobody can tell")


def _refused(found: str) -> OvernightError:
    return OvernightError(
        "The database is lost, and cannot be made anew exactly",
        found=found,
        expected="what every attempt was told in .overnight/attempts/, or its finished checkpoint",
        fix="restore .overnight/ from a backup; datasets and checkpoints stay as they are",
        code="database",
    )


class _Table:
    """The jobs, as they are found one after another; each file in the folders speaks for one of them."""

    def __init__(self, remains: Remains, *, now: float) -> None:
        self.remains, self.now = remains, now
        self.jobs: list[Job] = []
        self.notes: list[str] = []
        self.traces: dict[int, list[Trace]] = {}
        for trace in sorted(remains.traces, key=lambda one: one.number):
            self.traces.setdefault(trace.job, []).append(trace)
        self.reports = {one.job: one for one in remains.papers if one.job is not None and one.state in ENDED_PAPERS}
        self.known = {*self.traces, *(one.job for one in remains.saved), *self.reports}
        self.of_dataset = {one.dataset: one for one in remains.stored}
        self.of_content = {one.sha256: one for one in remains.stored if one.sha256} | self.of_dataset
        reported = set(map(id, self.reports.values()))
        self.free = [one for one in sorted(remains.papers, key=lambda one: one.at) if id(one) not in reported]
        self.last_begun = max(remains.traces, key=lambda one: one.created_at, default=None)

    def add_known(self, job: int) -> None:
        """Add a job that a trainer, a checkpoint or a report names."""
        traces, report = self.traces.get(job, []), self.reports.get(job)
        saved = max((one for one in self.remains.saved if one.job == job), key=lambda one: one.step, default=None)
        last = traces[-1] if traces else None
        dataset = last.dataset if last is not None else saved.dataset if saved is not None else None
        if self._is_finished(last, saved):
            paper = self._take(dataset, "done", "processing", "waiting")
            self._add(job, dataset, paper, JobState.SUCCEEDED, last.message if last is not None else "trained")
        elif report is not None:
            dataset = dataset or self._dataset_of(report)
            self._add(job, dataset, report, JobState(report.state), report.reason)
        else:
            self._add_begun(job, dataset, last, saved)

    def _add_begun(self, job: int, dataset: str | None, last: Trace | None, saved: Saved | None) -> None:
        paper = self._take(dataset, "processing", "waiting")
        is_last = self.last_begun is not None and self.last_begun.job == job
        if last is None or dataset not in self.of_dataset or (paper is None and not is_last):
            why = "it was begun, and nobody can tell what became of it"
            self.notes.append(f"job {job} is not queued: {why}; overnight retry {job} queues it again")
            self._add(job, dataset, paper, JobState.CANCELLED, why)
            return
        total = saved.job_total if saved is not None else None
        if total is None and last.total is not None:
            total = last.total - last.start_step
        made = self._job(job, dataset, paper, JobState.QUEUED, "begun before the database was lost: it goes on")
        self.jobs.append(replace(made, start_step=last.start_step, settings=last.settings, steps=total))

    def add_done(self) -> None:
        """Add what lies in done/ and no attempt speaks of any more."""
        for paper in [one for one in self.free if one.folder == "done"]:
            stored = self.of_content.get(paper.sha256)
            if stored is not None:
                self.free.remove(paper)
                self._add(self._next_id(), stored.dataset, paper, JobState.SUCCEEDED, "it lies in done/")

    def add_waiting(self) -> None:
        """Queue what lies in queue/ and never was begun, in the order in which it came."""
        for paper in [one for one in self.free if one.folder in OPEN]:
            stored = self.of_content.get(paper.sha256)
            if stored is None:
                self.notes.append(
                    f"queue/{paper.folder}/{paper.name} is not queued: it is not what was taken; drop it into the inbox"
                )
                continue
            self.free.remove(paper)
            self._add(self._next_id(), stored.dataset, paper, JobState.QUEUED, "waiting")

    def add_unexplained(self) -> None:
        """Name what lies in the store and in no folder: it may have been trained, so it is not queued."""
        explained = {job.dataset for job in self.jobs}
        for stored in sorted(self.remains.stored, key=lambda one: one.at):
            if stored.dataset not in explained:
                job = self._next_id()
                why = "nobody can tell whether it was trained or cancelled"
                self.notes.append(
                    f"a dataset of {stored.examples} rows is job {job} and not queued: {why}; overnight retry {job}"
                    " queues it"
                )
                self._add(job, stored.dataset, None, JobState.CANCELLED, why)

    def _is_finished(self, last: Trace | None, saved: Saved | None) -> bool:
        if saved is not None and saved.job_step >= saved.job_total:
            return True
        if last is None or last.outcome is not Outcome.COMPLETED:
            return False
        is_followed = self.last_begun is not None and self.last_begun.job != last.job
        return is_followed or not self.remains.saved

    def _take(self, dataset: str | None, *folders: str) -> Paper | None:
        """Return a file that holds a dataset, from the first folder that has one; it speaks for no other job then."""
        for folder in folders:
            for paper in self.free:
                found = self.of_content.get(paper.sha256)
                if paper.folder == folder and found is not None and found.dataset == dataset:
                    self.free.remove(paper)
                    return paper
        return None

    def _dataset_of(self, paper: Paper) -> str | None:
        found = self.of_content.get(paper.sha256)
        return found.dataset if found is not None else None

    def _next_id(self) -> int:
        return max([*self.known, *(job.id for job in self.jobs)], default=0) + 1

    def _add(self, job: int, dataset: str | None, paper: Paper | None, state: JobState, reason: str) -> None:
        self.jobs.append(self._job(job, dataset, paper, state, reason))

    def _job(self, job: int, dataset: str | None, paper: Paper | None, state: JobState, reason: str) -> Job:
        stored = self.of_dataset.get(dataset or "")
        traces = self.traces.get(job, [])
        is_over = state is not JobState.QUEUED
        first = paper.at if paper is not None else stored.at if stored is not None else self.now
        return Job(
            id=job,
            file=paper.name if paper is not None else f"job-{job}.jsonl",
            sha256=paper.sha256 if paper is not None else stored.sha256 if stored is not None else "",
            dataset=dataset,
            state=state,
            priority=Priority.NORMAL,
            examples=stored.examples if stored is not None else 0,
            steps=None,
            attempts=traces[-1].number if traces else 0,
            charged=sum(trace.charged for trace in traces) if not is_over else 0,
            overtaken=0,
            reason=reason,
            submitted_at=min([first, *(trace.created_at for trace in traces)]),
            finished_at=(traces[-1].ended_at if traces else None) or self.now if is_over else None,
            not_before=0.0,
            start_step=None,
            settings=None,
            filed=is_over,
        )


def _attempt(trace: Trace, *, now: float) -> Attempt:
    return Attempt(
        id=trace.attempt, job=trace.job, number=trace.number, state=AttemptState.ENDED,
        outcome=trace.outcome or Outcome.LOST, kind=trace.kind, handle=None,
        reason=trace.message or "the database was lost while it worked", started_at=trace.created_at,
        ended_at=trace.ended_at or now, exit_code=None, signal=None, first_step=trace.start_step,
        last_step=trace.last_step,
    )  # fmt: skip
