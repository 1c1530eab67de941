"""What validation found, in words."""

from __future__ import annotations

from overnight.domain.dataset import Validation


def lines(found: Validation, *, name: str, limit: int) -> str:
    """Return the whole report of a data file."""
    verdict = "fine" if found.ok else "refused"
    told = [f"{name}: {verdict}: {found.reason}", f"  rows       {found.rows}: {_rows(found)}"]
    told += [f"  formats    {', '.join(f'{count} {form}' for form, count in found.formats.items())}"] * bool(
        found.formats
    )
    told += [f"  tokens     {text}" for text in _tokens(found)]
    told += [f"  note       {text}" for text in (*found.warnings, *found.notes)]
    return "\n".join([*told, *([problems(found, limit=limit)] if found.problems else [])])


def problems(found: Validation, *, limit: int) -> str:
    """Return the first problems, one a line, each with what to do."""
    told = [
        f"  line {one.line}, column {one.column}: {one.message} [{one.code}]  {one.fix}"
        if one.line
        else f"  {one.message} [{one.code}]  {one.fix}"
        for one in found.problems[:limit]
    ]
    more = sum(found.problem_counts.values()) - len(told)
    return "\n".join([*told, *([f"  ... and {more} more: --json names them"] if more > 0 else [])])


def _rows(found: Validation) -> str:
    parts = [f"{found.accepted} accepted", f"{found.rejected} rejected"]
    parts += [f"{found.duplicates} duplicates"] * bool(found.duplicates)
    parts += [f"{found.already_trained} trained before"] * bool(found.already_trained)
    return ", ".join(parts)


def _tokens(found: Validation) -> list[str]:
    tokens = found.tokens
    if tokens is None:
        return []
    about = "" if tokens.exact else "about "
    split = (
        f"{tokens.supervised:,} supervised, {tokens.masked:,} masked, {tokens.truncated:,} truncated,"
        f" {tokens.dropped:,} dropped"
    )
    longest = f"longest row {tokens.max:,}, 95 of 100 rows up to {tokens.p95:,}, {tokens.over_limit} over the limit"
    return [f"{about}{tokens.total:,}: {split}", longest]
