"""The verbs of a workspace and its settings: init, config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overnight.cli import output
from overnight.cli.app import Json, app, config_app, layout_of
from overnight.domain.errors import ExitCode

if TYPE_CHECKING:
    from overnight.domain.config import ConfigProblem


@app.command(short_help="Make a workspace.")
def init(
    base_model: Annotated[
        str,
        typer.Option(
            "--base-model",
            metavar="M",
            help="A local folder, a Hub id, builtin:tiny or builtin:smollm2-135m.",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; the current folder by default.")] = Path("."),
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", metavar="N", help="What the model is called; by default as the folder."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as train.batch_size=4; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a workspace; refuses one that is there."""
    from overnight.control import making

    made = making.init(folder, base_model=base_model, model_name=model_name, assignments=settings or [], say=output.say)
    root = str(made.layout.root)
    if as_json:
        output.print_json({"workspace": root, "model_name": made.model_name, "base_model": made.base_model})
        return
    output.print_text(
        f"{root} is a workspace for {made.model_name} on {made.base_model}.\n"
        f"Drop .jsonl files into {made.layout.inbox}, then: overnight -C {root} up"
    )


app.add_typer(
    config_app,
    name="config",
    short_help="The settings: show, check, set, schema, lock.",
    help="Show, check and change the settings.",
)


@config_app.command("show")
def config_show(context: typer.Context, as_json: Json = False) -> None:
    """Show every setting with its value, defaults included."""
    from overnight.disk import config, locked
    from overnight.domain.config import flatten

    layout = layout_of(context)
    settings = config.read(layout)
    values = {key: value for key, value in settings.to_json().items() if key not in ("$schema", "schema")}
    if as_json:
        output.print_json({"settings": values})
        return
    given, lock = flatten(config.read_raw(layout.config)), locked.read(layout)
    rows = [
        (
            key,
            json.dumps(value, ensure_ascii=False),
            "locked" if key in lock.values else "" if key in given else "default",
        )
        for key, value in flatten(values).items()
    ]
    output.print_text(output.table(("KEY", "VALUE", ""), rows))


@config_app.command("check")
def config_check(context: typer.Context, as_json: Json = False) -> None:
    """Check config.json: valid, and in agreement with the checkpoints; every problem at once."""
    from overnight.control import settings

    checked = settings.check(layout_of(context))
    if as_json:
        output.print_json(
            {
                "ok": checked.is_ok,
                "locked": checked.locked.values,
                "problems": [_problem_json(problem) for problem in checked.problems],
            }
        )
    else:
        for problem in checked.problems:
            output.print_text(_told(problem))
        if checked.is_ok:
            lock = checked.locked
            locked = f"; {len(lock.values)} of them locked by {lock.source}" if lock.values else ""
            output.print_text(f"config.json is fine{locked}")
    if not checked.is_ok:
        raise typer.Exit(int(ExitCode.BAD_CONFIG))


@config_app.command("set")
def config_set(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as train.batch_size.", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or else text.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Change one setting: validated, refused where locked, written durably."""
    from overnight.control import settings
    from overnight.control.wishes import is_daemon_alive

    layout = layout_of(context)
    change = settings.change(layout, key, value)
    if as_json:
        output.print_json({"key": change.key, "before": change.before, "after": change.after})
    else:
        when = "; jobs that start from now on use it" if is_daemon_alive(layout) else ""
        before = f" (it was {json.dumps(change.before)})" if change.before is not None else ""
        output.print_text(f"{change.key} = {json.dumps(change.after)}{before}{when}")
    for problem in change.warnings:
        output.say(_told(problem))


@config_app.command("schema")
def config_schema(as_json: Json = False) -> None:
    """Print the JSON Schema of config.json: every key, its type, default and meaning."""
    from overnight.disk import config

    schema = config.json_schema()
    if as_json:
        output.print_json({"json_schema": schema})
    else:
        output.print_text(json.dumps(schema, indent=2, ensure_ascii=False))


@config_app.command("lock")
def config_lock(context: typer.Context, as_json: Json = False) -> None:
    """Show which settings may not change now, and which checkpoint locks them."""
    from overnight.disk import locked
    from overnight.domain.locked import why

    lock = locked.read(layout_of(context))
    if as_json:
        output.print_json({"locked": lock.values, "source": lock.source, "step": lock.step, "readable": lock.readable})
        return
    if not lock.readable:
        output.print_text("Checkpoints are there, and none can tell what belongs to it: overnight verify says why.")
    elif not lock.values:
        output.print_text("Nothing is locked: there is no checkpoint yet.")
    else:
        output.print_text(f"Locked by {lock.source}:")
        rows = [(key, json.dumps(value, ensure_ascii=False), why(key)) for key, value in lock.values.items()]
        output.print_text(output.table(("KEY", "LOCKED TO", "BECAUSE"), rows))


def _problem_json(problem: ConfigProblem) -> dict[str, Any]:
    return {
        "key": problem.key,
        "code": problem.code,
        "level": problem.level,
        "message": problem.message,
        "found": problem.found,
        "expected": problem.expected,
        "fix": problem.fix,
    }


def _told(problem: ConfigProblem) -> str:
    """Return a problem in words, a locked key with its current and its locked value."""
    from overnight.domain.errors import ConfigError
    from overnight.domain.locked import refused

    if problem.code == "locked" and problem.key:
        return str(refused([problem]))
    words = str(ConfigError(problem.message, found=problem.found, expected=problem.expected, fix=problem.fix))
    return words if problem.level == "error" else f"warning: {words}"
