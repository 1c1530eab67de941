"""The verbs of versions: consolidate, versions."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, opened, opened_for_reading
from overnight.domain.errors import ExitCode, UsageError
from overnight.domain.export import Format
from overnight.domain.printable import shown

versions_app = typer.Typer(rich_markup_mode=None)

app.add_typer(
    versions_app,
    name="versions",
    short_help="The published models: list, check, put in use, delete.",
    help="List the published models, each with what it is, what it was made from, and whether it is whole.",
)

Id = Annotated[str, typer.Argument(metavar="V", help="The exact id, such as v001.", show_default=False)]


@app.command(short_help="Make the model as it stands a version, and go on from it.")
def consolidate(
    context: typer.Context,
    message: Annotated[
        str, typer.Option("-m", "--message", metavar="TEXT", help="What it is, in your words.", show_default=False)
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Behind the current job, instead of not at all.")] = False,
    as_json: Json = False,
) -> None:
    """Merge the adapter into the base model that it was trained on: models/vNNN, checked before it is used.

    Refused while training (exit code 75); with --wait it is made once the current job has ended, also where this
    command, the daemon or the machine dies meanwhile. Training goes on from the new version. Nothing is changed unless
    the merged model computes what base and adapter do.
    """
    from overnight.control import versions as control
    from overnight.disk import versions as disk

    said: list[str] = []

    def tell(words: str) -> None:
        if said[-1:] != [words]:
            said.append(words)
            if sys.stderr.isatty():
                output.say(words)

    with opened(context) as (layout, connection):
        make = control.consolidate_when_free if wait else control.consolidate
        made = make(layout, connection, description=message, tell=tell, now=time.time())
        report = disk.judge_by_looks(layout.versions / made.id)
    if as_json:
        output.print_json({"ok": True, "version": {**disk.to_json(report), "merge": made.merge}})
    else:
        output.print_text(
            f"{made.id} is published at step {made.step}, made from {made.parent or 'the base model'} and"
            f" {made.checkpoint}; training goes on from it"
        )


@versions_app.callback(invoke_without_command=True)
def versions(context: typer.Context, as_json: Json = False) -> None:
    """List the published models."""
    if context.invoked_subcommand is not None:
        return
    from overnight.control import versions as control
    from overnight.disk import locked
    from overnight.disk import versions as disk

    with opened_for_reading(context) as (layout, _):
        found, in_use = control.listing(layout), locked.version_in_use(layout)
    if as_json:
        output.print_json({"in_use": in_use, "versions": [disk.to_json(report) for report in found]})
    elif not found:
        output.print_text("no version yet: overnight consolidate -m TEXT makes one")
    else:
        output.print_text(_table([disk.to_json(report) for report in found], in_use))


@versions_app.command("show")
def show(context: typer.Context, identity: Id, as_json: Json = False) -> None:
    """Show one version: what it is, what it was made from, what it was trained on."""
    from overnight.control import versions as control

    with opened_for_reading(context) as (layout, _):
        told = control.describe(layout, control.find(layout, identity))
    if as_json:
        output.print_json(told)
    else:
        output.print_text(_page(told))


@versions_app.command("verify")
def verify(context: typer.Context, identity: Id, as_json: Json = False) -> None:
    """Read one version, and its copy in the second place, to the last byte; exit code 1 where one is damaged."""
    from overnight.control import copies
    from overnight.control import versions as control

    with opened_for_reading(context) as (layout, _):
        report, copy = control.verify(layout, identity), copies.copy_of(layout, identity)
    is_whole = report.state == "ok" and (copy is None or copy.is_verified)
    if as_json:
        told = {"id": report.id, "state": report.state, "reason": report.reason}
        output.print_json({"ok": is_whole, **told, "copy": copies.to_json(copy) if copy is not None else None})
    else:
        output.print_text(f"{report.id}: {report.state.value} ({report.reason})")
        if copy is not None:
            output.print_text(f"its copy, {copy.path}: {'ok' if copy.is_verified else 'damaged'} ({copy.reason})")
    if not is_whole:
        raise typer.Exit(int(ExitCode.PROBLEM))


@versions_app.command("rollback")
def rollback(
    context: typer.Context,
    identity: Annotated[
        str | None,
        typer.Argument(metavar="[V]", help="An exact id, or base; the one before by default.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put another version in use; what is there now is kept, and comes back the same way.

    V comes back as it was left by an earlier rollback, else as it was published; base is the base model of the
    workspace, with the checkpoints from which the first version was made. Where V is in use, what was trained on it
    since is put aside. Refused while training (exit code 75), and for a version that is not whole (exit code 1).
    """
    from overnight.control import versions as control

    with opened(context) as (layout, connection):
        done = control.roll_back(layout, connection, to=identity, now=time.time())
    if as_json:
        told = {"version": done.version, "before": done.before, "step": done.step, "checkpoint": done.checkpoint}
        output.print_json({"ok": True, **told})
    else:
        output.print_text(done.message)


@versions_app.command("export")
def export(
    context: typer.Context,
    identity: Id,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.", show_default=False)],
    format: Annotated[Format, typer.Option("--format", help="What it becomes.")] = Format.HF,
    as_json: Json = False,
) -> None:
    """Write a version into a new folder: for transformers and vLLM (hf), the adapter alone, or one GGUF file.

    The version is read to the last byte first, and what is written is read back. The chat template goes along byte for
    byte. GGUF keeps each weight's bits; it is for models of the Llama architecture with a byte-level tokenizer, others
    are refused. A Modelfile for Ollama lies beside the model, and the commands to use it are printed.
    """
    from overnight.control import exporting

    with opened_for_reading(context) as (layout, _):
        done = exporting.export_version(layout, identity, to=to, format=format)
    if as_json:
        output.print_json({"ok": True, **dataclasses.asdict(done)})
    else:
        told = f"{done.id} as {done.format.value}: {done.path} ({done.bytes / 1e6:.1f} MB, {len(done.files)} files)"
        output.print_text("\n".join([told, *(f"  {command}" for command in done.commands)]))


@versions_app.command("delete")
def delete(
    context: typer.Context,
    identity: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Move a version into the trash; refused for the one in use and for the parent of another (exit code 75)."""
    from overnight.control import versions as control

    with opened(context) as (layout, connection):
        doomed = control.plan_deletion(layout, identity)
        if not yes:
            _ask(identity, doomed.words, doomed.bytes, as_json=as_json)
        gone = control.delete(layout, connection, identity, now=time.time())
    if as_json:
        output.print_json({"ok": True, "deleted": gone.id, "bytes": gone.bytes, "checkpoints": gone.checkpoints})
    else:
        output.print_text(
            f"{gone.words} lies in the trash ({gone.bytes / 1e6:.1f} MB); it is removed after disk.trash_days"
        )


def _ask(identity: str, what: str, size: int, *, as_json: bool) -> None:
    """Have the operator type the id; where nobody can, refuse. Raises UsageError, or Exit where it is another one."""
    if as_json or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise UsageError(
            "Nothing was deleted: nobody can be asked here",
            found=f"{what} would go ({size / 1e6:.1f} MB)",
            expected="--yes, or a terminal",
            fix=f"overnight versions delete {identity} --yes",
            code="not_confirmed",
        )
    output.say(f"{what} would go ({size / 1e6:.1f} MB)")
    typed = typer.prompt(f"Type {identity} to delete it", default="", show_default=False, err=True)
    if typed != identity:
        output.say("nothing was deleted")
        raise typer.Exit(int(ExitCode.PROBLEM))


def _table(found: list[dict[str, Any]], in_use: str | None) -> str:
    rows = [
        (
            f"{one['id']}{' *' if one['id'] == in_use else ''}",
            str(one["parent"] or "-"),
            str(one["created_at"] or "-"),
            str(one["step"] if one["step"] is not None else "-"),
            f"{one['bytes'] / 1e6:.1f} MB",
            one["state"] if one["state"] == "ok" else f"{one['state']}: {one['reason']}",
            _first_line(str(one["description"] or "")),
        )
        for one in found
    ]
    return output.table(("ID", "FROM", "MADE", "STEP", "SIZE", "STATE", "WHAT"), rows)


def _first_line(text: str) -> str:
    line = output.one_line(text)
    return line if len(line) <= 60 else line[:57] + "..."


def _page(told: dict[str, Any]) -> str:
    lines = [
        f"{told['id']}{' (in use)' if told['in_use'] else ''}: {told['state']} ({told['reason']})",
        *(f"  > {line}" for line in shown(str(told.get("description") or ""), keep="\n").splitlines()),
    ]
    names = (
        "parent", "children", "created_at", "step", "kind", "method", "model_name", "base_model", "base_fingerprint",
        "checkpoint", "bytes", "path",
    )  # fmt: skip
    lines += [f"{name:<17} {told.get(name)}" for name in names if told.get(name) not in (None, [], "")]
    for name in ("fingerprints", "metrics", "merge", "libraries"):
        lines += [f"{name}: {key:<28} {value}" for key, value in (told.get(name) or {}).items()]
    lines += [
        f"trained on: {one.get('file')} (job {one.get('job')}, {one.get('examples')} rows, {one.get('steps')} steps,"
        f" sha256 {one.get('sha256')})"
        for one in told.get("datasets") or []
    ]
    return "\n".join(output.one_line(line) for line in lines)
