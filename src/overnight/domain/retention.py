"""Which checkpoints stay: a plan with a reason for each one, carried out elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def plan(reports: Iterable[CheckpointReport], *, keep: int, in_use: frozenset[int] = frozenset()) -> list[Item]:
    """Return one item for each report, newest step first: the ``keep`` newest verified ones stay, by number.

    ``in_use`` are steps that somebody works with. What is not verified is neither counted nor removed here. The
    content of the newest ``keep`` must have been read; of those that go, it need not. Raises UsageError where ``keep``
    is below 1.
    """
    if keep < 1:
        raise UsageError(
            "At least one checkpoint must stay",
            found=f"keep {keep}",
            expected="1 or more",
            fix="overnight cleanup --keep 1 keeps the newest verified one",
        )
    items: list[Item] = []
    kept = 0
    for report in sorted(reports, key=lambda report: report.step, reverse=True):
        is_good = report.verdict is Verdict.VERIFIED
        if not is_good:
            items.append(_item(report, is_kept=True, reason=f"{report.verdict.value}, left alone: {report.reason}"))
        elif kept < keep:
            kept += 1
            which = "the newest verified one" if kept == 1 else f"number {kept} of the {keep} newest verified ones"
            items.append(_item(report, is_kept=True, reason=which))
        elif report.step in in_use:
            items.append(_item(report, is_kept=True, reason="in use: the running attempt started from it"))
        else:
            items.append(_item(report, is_kept=False, reason=f"older than the {keep} newest verified ones"))
    return items


def _item(report: CheckpointReport, *, is_kept: bool, reason: str) -> Item:
    return Item(
        step=report.step, path=report.path, bytes=report.bytes, verdict=report.verdict, is_kept=is_kept, reason=reason
    )
