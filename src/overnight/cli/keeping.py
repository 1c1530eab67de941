"""The verbs that keep a workspace in order: cleanup, doctor."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, layout_of, opened
from overnight.domain.errors import ExitCode, UsageError
from overnight.domain.printable import shown

if TYPE_CHECKING:
    from overnight.control.cleaning import Plan


@app.command(short_help="Remove old checkpoints, never the last good one.")
def cleanup(
    context: typer.Context,
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="So many of the newest verified ones stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old checkpoints; refused while training is active (exit code 75).

    The newest verified ones stay, judged by their content, and whatever is in use, the parent of an unfinished job, or
    pinned by a file named 'pinned' in its folder. Damaged ones are never removed: what is older than a good one is set
    aside into the trash. Without --yes it asks; where there is no terminal to ask it does nothing (exit code 2).
    """
    from overnight.control import cleaning
    from overnight.domain.retention import require_keep

    require_keep(keep)
    with opened(context) as (layout, connection):
        plan = cleaning.plan(layout, connection, keep=keep, now=time.time())
        if not dry_run and not plan.is_empty:
            if not yes:
                _ask(plan, as_json=as_json)
            plan = cleaning.carry_out(layout, connection, plan, keep=keep, now=time.time())
    if as_json:
        output.print_json({"ok": True, "dry_run": dry_run, **plan.to_json()})
    else:
        output.print_text(_in_words(plan, is_done=not dry_run))


@app.command(short_help="The health check: what is wrong, and what to do.")
def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without losing anything.")] = False,
    as_json: Json = False,
) -> None:
    """Check workspace, model, guards and machine; exit code 1 where a check failed.

    It needs neither the daemon nor torch, changes nothing without --fix, and waits for no driver that hangs.
    """
    from overnight.control import doctor as doctors
    from overnight.domain.diagnosis import Status, is_ok

    layout = layout_of(context)
    checks, done = doctors.diagnose(layout, now=time.time()), []
    if fix and any(check.can_be_fixed for check in checks):
        done = doctors.fix(layout, checks)
        checks = doctors.diagnose(layout, now=time.time())
    if as_json:
        output.print_json({"ok": is_ok(checks), "fixed": done, "checks": doctors.to_json(checks)})
    else:
        for line in done:
            output.say(line)
        colors = {Status.FAIL: output.RED, Status.WARN: output.YELLOW, Status.PASS: output.GREEN}
        for check in checks:
            status = output.colored(check.status.value.ljust(5), colors.get(check.status, output.DIM))
            output.print_safe(f"{status} {check.name:<12} {shown(check.message)}")
            if check.fix is not None:
                output.print_safe(output.colored(f"{'':18} to do: {check.fix}", output.DIM))
    if not is_ok(checks):
        raise typer.Exit(int(ExitCode.PROBLEM))


def _ask(plan: Plan, *, as_json: bool) -> None:
    """Ask the operator; where nobody can answer, refuse. Raises UsageError, or Exit where the answer is no."""
    if as_json or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError(
            "Nothing was removed: nobody can be asked here",
            found=f"{_count(plan)} would go ({plan.freed_bytes / 1e6:.1f} MB)",
            expected="--yes, or a terminal",
            fix="overnight cleanup --dry-run shows the plan, overnight cleanup --yes carries it out",
            code="not_confirmed",
        )
    output.say(_in_words(plan, is_done=False))
    if not typer.confirm(f"Remove {_count(plan)}?", default=False, err=True):
        output.say("nothing was removed")
        raise typer.Exit(int(ExitCode.PROBLEM))


def _count(plan: Plan) -> str:
    number = len(plan.removed)
    told = f"{number} checkpoint{'' if number == 1 else 's'}"
    resting, aside = len(plan.removed_trash), len(plan.set_aside)
    told += f" and {resting} from the trash" if resting else ""
    return f"{told} ({aside} damaged set aside)" if aside else told


def _in_words(plan: Plan, *, is_done: bool) -> str:
    going = "removed" if is_done else "goes"
    rows = [
        (
            Path(item.path).name,
            "aside" if item.is_set_aside else "stays" if item.is_kept else going,
            f"{item.bytes / 1e6:.1f} MB",
            item.reason,
        )
        for item in plan.checkpoints
    ]
    rows += [
        (
            f"trash/{item.resting.name}",
            "stays" if item.is_kept else going,
            f"{item.resting.bytes / 1e6:.1f} MB",
            item.reason,
        )
        for item in plan.trash
    ]
    freed = f"{_count(plan)}, {plan.freed_bytes / 1e6:.1f} MB {'freed' if is_done else 'would be freed'}"
    return "\n".join([*([output.table(("WHAT", "", "SIZE", "BECAUSE"), rows)] if rows else []), freed])
