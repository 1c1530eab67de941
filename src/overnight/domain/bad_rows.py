"""Rows that give no number: how many of a job may be left out before the job itself is at fault."""

from __future__ import annotations

from collections.abc import Sequence

LIMIT_SHARE = 0.1
"""More of a job's rows are not left out: then it is not the rows."""


def left_out(before: Sequence[int], found: Sequence[int], *, of: int) -> list[int] | None:
    """Return the numbers of the rows to leave out from now on, or None where that is no remedy.

    It is none where no row is to blame, where the blamed ones were left out already, or where they grow too many.
    """
    together = sorted({*before, *found})
    if not set(found) - set(before) or len(together) > max(1, LIMIT_SHARE * of):
        return None
    return together
