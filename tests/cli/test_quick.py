"""A verb that is built alone says and does what it does among all the others."""

from __future__ import annotations

import pytest

from overnight import cli
from overnight.cli import quick
from overnight.cli.app import app
from overnight.disk.layout import Layout

LINES = (
    "", "--help", "-h status", "--help status", "--version status", "statsu", "foo status", "status --help",
    "add --help", "add", "status --nope", "status too many", "-C", "-C status", "--debug queue --nope", "versions",
    "versions show -h", "config", "crashes --help", "--nope status", "-C {root} status --json --guards --nope",
    "-C {root} queue --json", "--workspace={root} queue", "-C {root} config show", "-C {root} events --json",
)  # fmt: skip


def said(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run(line.split())
    return code, *capsys.readouterr()


@pytest.mark.parametrize("line", LINES)
def test_a_verb_that_is_built_alone_says_what_it_says_among_all(
    layout: Layout, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = line.format(root=layout.root)
    alone = said(line, capsys)
    monkeypatch.setattr(quick, "narrowed", lambda app, words: app)
    assert alone == said(line, capsys)


@pytest.mark.parametrize("line", ["status", "-C status status", "--debug --workspace add status -h"])
def test_only_the_verb_that_is_meant_is_built(line: str) -> None:
    cli.run(["--version"])  # by this the verbs are in the app
    (only,) = quick.narrowed(app, line.split()).registered_commands
    assert only.callback is not None
    assert only.callback.__name__ == "status"
    assert len(app.registered_commands) > 20
