"""Which checkpoints stay, and how long what was set aside lies in the trash: plans with a reason for each item.

They are carried out elsewhere (removal.py); a dry run shows the very same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One folder of the model directory, and what becomes of it."""

    step: int
    path: str
    bytes: int
    verdict: Verdict
    is_kept: bool
    reason: str
    is_set_aside: bool = False
    """It is damaged, and a newer one is good: kept, but in the trash, where it lies for its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """Something that was set aside into the trash."""

    name: str
    path: str
    bytes: int
    age_s: float  # as long as it was watched: it neither grows while nobody runs nor jumps with a clock
    files: int = 1  # with its folders: so many inodes it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashItem:
    """One thing in the trash, and what becomes of it."""

    resting: Resting
    is_kept: bool
    reason: str


def plan(reports: Iterable[CheckpointReport], *, keep: int, held: Mapping[int, str] | None = None) -> list[Item]:
    """Return one item for each report, newest step first: the ``keep`` newest verified ones stay, by number.

    ``held`` are steps that stay whatever their age, each with the reason. What is not verified is neither counted nor
    removed here; what is damaged and older than a verified one is set aside: nothing can ever start from it. The
    content of the newest ``keep`` must have been read; of those that go, it need not. Raises UsageError where ``keep``
    is below 1.
    """
    require_keep(keep)
    held, reports = held or {}, list(reports)
    items: list[Item] = []
    kept = 0
    newest_good = max((report.step for report in reports if report.verdict is Verdict.VERIFIED), default=None)
    for report in sorted(reports, key=lambda report: report.step, reverse=True):
        if _is_useless(report, newest_good) and report.step not in held:
            reason = f"{report.verdict.value}, and checkpoint-{newest_good} is good: {report.reason}"
            items.append(replace(_item(report, is_kept=True, reason=reason), is_set_aside=True))
        elif report.verdict is not Verdict.VERIFIED:
            items.append(_item(report, is_kept=True, reason=f"{report.verdict.value}, left alone: {report.reason}"))
        elif kept < keep:
            kept += 1
            which = "the newest verified one" if kept == 1 else f"number {kept} of the {keep} newest verified ones"
            items.append(_item(report, is_kept=True, reason=which))
        elif report.step in held:
            items.append(_item(report, is_kept=True, reason=held[report.step]))
        else:
            newest = "the newest verified one" if keep == 1 else f"the {keep} newest verified ones"
            items.append(_item(report, is_kept=False, reason=f"older than {newest}"))
    return items


def _is_useless(report: CheckpointReport, newest_good: int | None) -> bool:
    is_damaged = report.verdict in (Verdict.CORRUPT, Verdict.INCOMPLETE)
    return is_damaged and not report.is_unreadable and newest_good is not None and 0 <= report.step < newest_good


def require_keep(keep: int) -> None:
    """Raise UsageError where less than one checkpoint would stay."""
    if keep < 1:
        raise UsageError(
            "At least one checkpoint must stay",
            found=f"keep {keep}",
            expected="1 or more",
            fix="overnight cleanup --keep 1 keeps the newest verified one",
            code="usage",
        )


def plan_trash(
    found: Iterable[Resting], *, limit_s: float, missing_bytes: float = 0, missing_inodes: int = 0
) -> list[TrashItem]:
    """Return one item for each thing in the trash, the oldest first.

    What lay there for ``limit_s`` goes; where the disk lacks space or inodes, the oldest go before, while it does.
    """
    items: list[TrashItem] = []
    freed, freed_inodes = 0, 0
    for resting in sorted(found, key=lambda resting: (-resting.age_s, resting.name)):
        if resting.age_s >= limit_s:
            reason = f"it was set aside {_days(resting.age_s)} ago; the limit is {_days(limit_s)}"
            items.append(TrashItem(resting=resting, is_kept=False, reason=reason))
        elif freed < missing_bytes or freed_inodes < missing_inodes:
            items.append(
                TrashItem(resting=resting, is_kept=False, reason="space is short, and this is only kept aside")
            )
        else:
            reason = f"set aside {_days(resting.age_s)} ago; it may lie here for {_days(limit_s)}"
            items.append(TrashItem(resting=resting, is_kept=True, reason=reason))
            continue
        freed += resting.bytes
        freed_inodes += resting.files
    return items


def _days(seconds: float) -> str:
    days = seconds / 86_400
    return f"{days:.0f} days" if days >= 2 else f"{seconds / 3600:.0f} hours"


def _item(report: CheckpointReport, *, is_kept: bool, reason: str) -> Item:
    return Item(
        step=report.step, path=report.path, bytes=report.bytes, verdict=report.verdict, is_kept=is_kept, reason=reason
    )
