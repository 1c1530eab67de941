"""From which earlier data sets a job replays rows: decided once, before its first launch, and recorded with the job.

Each one is read to the last byte, beside the loop. One that is missing or damaged is told and left out, so that a night
does not fail for an old file; what was decided then stands for all attempts of the job. ``retry`` decides anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from overnight.daemon.context import Context, Moment
from overnight.database import queue
from overnight.database.trained import trained_jobs
from overnight.disk import dataset_files
from overnight.disk.layout import Layout
from overnight.domain import rehearsal
from overnight.domain.job import Job
from overnight.domain.rehearsal import Source
from overnight.publishing import lineage


def is_decided(context: Context, job: Job, now: Moment) -> bool:
    """Return whether it stands from which data sets the job replays; False while they are read."""
    if context.limits.train.replay == 0 or job.steps is not None:  # once it was trained nothing is decided any more
        return True
    counted = queue.accounting(context.connection, job.id)
    jobs = rehearsal.in_the_model(
        trained_jobs(context.connection),
        known=lineage.jobs(context.layout, context.connection),
        step=lineage.step(context.layout),
    )
    sources = rehearsal.sources_of(jobs, dataset=job.dataset or "")
    asked = [asdict(source) for source in sources]
    recorded = counted.get("rehearsal")
    if recorded is not None and (job.settings is not None or recorded["asked"] == asked):
        return True
    layout = context.layout
    answer = context.errands.ask(
        f"rehearsal {job.id} {rehearsal.fingerprint(0, sources)}", lambda: damage_of(layout, sources)
    )
    if answer is None:
        return False
    damage = answer.value
    for source in sources:
        if source.dataset in damage:
            context.record(
                f"{job.file} (job {job.id}) replays no rows of data set {source.dataset[:12]}:"
                f" {damage[source.dataset]}; adding its file again stores it anew for the jobs to come",
                kind="replay.left_out", level="warning", at=now.unix, job=job.id, dataset=source.dataset,
            )  # fmt: skip
    whole = [asdict(source) for source in sources if source.dataset not in damage]
    value = {"asked": asked, "sources": whole, "damaged": damage}
    queue.set_accounting(context.connection, job.id, {**counted, "rehearsal": value})
    return True


def damage_of(layout: Layout, sources: Sequence[Source]) -> dict[str, str]:
    """Return what is wrong with data sets that cannot be replayed, by their id."""
    found: dict[str, str] = {}
    for source in sources:
        dataset = dataset_files.find(layout.datasets, source.dataset)
        if not dataset.rows_file.is_file():
            found[source.dataset] = "its rows are not there any more"
        elif not dataset_files.is_whole(dataset):
            found[source.dataset] = "its rows are not those that were stored"
    return found
