"""Names, texts and settings of somebody who means harm: nothing outside is touched, no secret is told."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from overnight.control import adding
from overnight.disk.layout import Layout
from overnight.domain.errors import OvernightError
from simulated_rig import Rig

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
FORGED = "\n2026-01-01T00:00:00+0000 ERROR forged\n[ERROR] forged"
LOOKS: tuple[tuple[str, ...], ...] = (
    ("status",), ("status", "--guards"), ("queue",), ("events",), ("logs",), ("logs", "trainer"), ("logs", "watchdog"),
    ("crashes",), ("checkpoints",), ("verify",), ("doctor",), ("config", "show"), ("config", "check"),
    ("config", "lock"),
)  # fmt: skip
OUTSIDE = (
    "../../config.json",
    "/etc/passwd",
    "a\0b",
    "..",
    ".",
    "../../../etc",
    "%2e%2e/x",
    "checkpoint-5/../../x",
    "",
)


def listing(root: Path) -> dict[str, bytes | None]:
    """Return everything below a folder, with its content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


@pytest.mark.parametrize(
    "words",
    [
        ("cancel",), ("retry",), ("move", "--priority", "high"), ("crashes", "show"), ("logs",), ("validate",),
        ("add",), ("crashes", "classify"), ("config", "set", "seed"), ("cleanup", "--keep"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_that_points_outside_is_refused_and_nothing_is_touched(
    rig: Rig, run: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    rig.make(files=1)
    rig.settle()
    before = listing(tmp_path)
    for name in OUTSIDE:
        if words in (("validate",), ("crashes", "classify")) and name == "/etc/passwd":
            continue  # reading what the user himself may read is what they are for
        said = run("-C", str(rig.layout.root), *words, "--", name)
        assert said.code in (1, 2, 65, 78), (name, said)
        assert "Traceback" not in said.err
    after = {path: data for path, data in listing(tmp_path).items() if ".overnight/state.db" not in path}
    assert [path for path in before.keys() & after.keys() if before[path] != after[path]] == []
    ours = tuple(map(str, (rig.layout.rejected, rig.layout.claimed, rig.layout.logs)))
    assert [path for path in after.keys() - before.keys() if not path.startswith(ours) and ".lock" not in path] == []


def test_a_path_with_a_zero_byte_is_refused_in_words_by_the_functions_too(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(OvernightError):
        adding.validate(Path("a\0b.jsonl"), layout=None, settings=None, trained=[], progress=None)


def test_no_name_no_text_and_no_setting_reaches_terminal_or_log_raw(rig: Rig, run: Any) -> None:
    rig.make(model_name="m" + ESCAPES.replace("\x9b", ""))
    evil = f"a{ESCAPES}{FORGED}.jsonl".replace("/", "")
    rig.drop(evil, data=json.dumps({"text": ESCAPES + FORGED}).encode() + b"\n")
    rig.drop(f"bad{evil}", data=f'{{"text{ESCAPES}": \x1b[2J}}\n{{"text": "x", "{FORGED}": }}\n'.encode())
    rig.simulate(fault="crash@1:1")
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.jobs()) == 2 and all(job.filed for job in rig.jobs()), timeout=60)
    for folder in rig.layout.attempts.iterdir():  # what a library prints of a row
        with open(folder / "trainer.log", "a") as log:
            log.write(f"ValueError: {ESCAPES}{FORGED}\n")
    rig.tick_until(context, lambda: rig.jobs()[0].state.value == "succeeded", timeout=60)
    for words in LOOKS:
        for form in ((), ("--json",)) if words[0] not in ("logs", "events") else ((),):
            said = run("-C", str(rig.layout.root), *words, *form)
            assert "Traceback" not in said.err
            for told in (said.out, said.err):
                assert not set(told) & set("\x1b\x07\x9b\u202e"), (words, told)
                if words != ("logs", "trainer"):  # what the trainer itself prints is lines of its own
                    assert not re.search(r"(?m)^(\[ERROR\] forged|2026-01-01T00:00:00)", told), (words, told)
    for path in [*rig.layout.logs.iterdir(), rig.layout.status_file, *rig.layout.root.rglob("*.report.json")]:
        text = path.read_text()
        assert not set(text) & set("\x1b\x07\x9b\u202e"), path
        if path.name != "trainer.log":
            assert not re.search(r"(?m)^(\[ERROR\] forged|2026-01-01T00:00:00)", text), path
    for folder in (rig.layout.done, rig.layout.rejected, rig.layout.waiting, rig.layout.processing):
        assert all(path.name.isprintable() for path in folder.iterdir())


SECRETS = {
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWx", "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-abcdefghijklmnopqrstuvwx", "MY_PASSWORD": "correct-horse-battery",
}  # fmt: skip
URL = "https://user:s3cr3tpassw0rd@example.org/hook?token=hf_ZyXwVuTsRqPoNmLkJiHgFeDc"


def test_no_secret_of_the_environment_or_the_settings_is_told_anywhere(
    rig: Rig, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    rig.make(files=2, notify__urls=[URL])
    rig.simulate(fault="crash@2:1")
    context = rig.context()
    rig.tick_until(context, lambda: rig.attempts())
    rig.set(notify__urls=[URL, URL])  # a change is told
    for folder in rig.layout.attempts.iterdir():  # what a library prints that meets a login that fails
        with open(folder / "trainer.log", "a") as log:
            log.write("".join(f"401 for {name}={value}\n" for name, value in SECRETS.items()))
    rig.tick_until(context, rig.is_done, timeout=60)
    secrets = [*SECRETS.values(), "s3cr3tpassw0rd", "hf_ZyXwVuTsRqPoNmLkJiHgFeDc"]
    for words in LOOKS:
        if words == ("config", "show"):
            continue  # whoever asks for the settings gets what stands in his own file
        said = run("-C", str(rig.layout.root), *words)
        assert [secret for secret in secrets if secret in said.out + said.err] == [], words
    kept = [rig.layout.logs, rig.layout.crashes, rig.layout.status_file.parent, rig.layout.rejected]
    for path in [path for folder in kept for path in folder.rglob("*") if path.is_file()]:
        text = path.read_text(errors="replace")
        assert [secret for secret in secrets if secret in text] == [], path
    assert any(rig.layout.crashes.iterdir()), "evidence was kept"


@pytest.mark.parametrize("place", [".", ".overnight", "current_model", "queue", "config.json", ".overnight/state.db"])
def test_a_workspace_that_everybody_may_write_is_warned_of(rig: Rig, run: Any, place: str) -> None:
    rig.make()
    said = run("-C", str(rig.layout.root), "doctor", "--json")
    assert permissions(said)["status"] == "pass"
    path = rig.layout.root / place
    path.chmod(0o777)
    found = permissions(run("-C", str(rig.layout.root), "doctor", "--json"))
    assert found["status"] == "warn"
    assert os.path.normpath(path) in found["message"]
    assert "chmod" in found["fix"]


def permissions(said: Any) -> dict[str, Any]:
    return next(check for check in said.json["checks"] if check["name"] == "permissions")
