"""Consolidation and rollback killed at any rename, sync or removal: old or new, and the next command completes it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from overnight.database import events
from overnight.disk import locked, transition, versions
from overnight.domain.version import VersionState
from sweep_rig import needs_strace, sampled, strace, sweep
from version_rig import VersionRig

pytestmark = [pytest.mark.crash, needs_strace, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one trained file, and beside it one with two versions, something trained on the second."""
    home = tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as monkeypatch:
        rig = VersionRig(home / "one", monkeypatch)
        rig.make()
        rig.simulate(step_s=0.0)
        rig.train("a.jsonl")
        rig.settle()
        shutil.copytree(home / "one", home / "two", symlinks=True)
        rig = VersionRig.at(home / "two", monkeypatch)
        rig.simulate(step_s=0.0)
        rig.consolidate()
        rig.train("b.jsonl")
        rig.consolidate()
        rig.train("c.jsonl")
        rig.settle()
    return home


def command(rig: VersionRig, *words: str) -> list[str]:
    return [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), *words]


def run(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, timeout=120, check=False)


def copied(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> VersionRig:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)
    rig = VersionRig.at(target, monkeypatch)
    rig.simulate(step_s=0.0)
    return rig


def struck(rig: VersionRig, call: str, point: int, *words: str) -> bool:
    killed = run([*strace(call, point), *command(rig, *words)])
    is_met = killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert is_met or killed.returncode == 0, killed.stderr
    return is_met


def told(rig: VersionRig, kind: str) -> int:
    connection = rig.connect()
    try:
        return len(events.of_kind_after(connection, kind, 0))
    finally:
        connection.close()


def assert_clean(rig: VersionRig) -> None:
    """Nothing half done is left, whatever came before."""
    assert not rig.layout.transition.exists()
    assert [path.name for path in rig.layout.versions.iterdir() if path.name.startswith(".")] == []


@sampled(rename=(6, 9), fsync=(5, 30), unlink=(1,))
def test_consolidation_killed_at_an_arrow_is_old_or_new_and_the_next_command_completes_it(
    trained: Path, tmp_path: Path, call: str, points: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = VersionRig.at(trained / "one").here()
    checkpoint = {name: value for name, value in before.items() if "checkpoint-" in name}

    def strike(point: int) -> bool:
        rig = copied(trained / "one", tmp_path / "w", monkeypatch)
        is_met = struck(rig, call, point, "consolidate", "-m", "killed")
        listed = run(command(rig, "versions", "--json"))
        assert listed.returncode == 0, listed.stderr
        found = json.loads(listed.stdout)["versions"]
        if not found:
            assert rig.here() == before
            assert told(rig, "version.published") == 0
            rig.consolidate("killed")
        assert_new(rig, checkpoint)
        return is_met

    sweep("consolidation", call, points, strike)


def assert_new(rig: VersionRig, checkpoint: dict[str, str]) -> None:
    """Version, config.json, lock and checkpoints have moved together, once."""
    layout = rig.layout
    assert versions.identities(layout) == ["v001"]
    report = versions.verify(layout.versions / "v001")
    assert report.state is VersionState.OK, report.reason
    assert json.loads(layout.config.read_text())["base_model"] == "models/v001"
    assert locked.read(layout).values["base_model"] == "models/v001"
    assert json.loads(layout.config_lock.read_text())["version"] == "v001"
    assert transition.checkpoint_names(layout.model) == []
    kept = VersionRig.hashes(layout.history / "before-v001", layout.model.parent)
    assert {
        name.replace(".history/before-v001/", ""): value for name, value in kept.items() if "checkpoint" in name
    } == (checkpoint)
    assert told(rig, "version.published") == 1
    assert_clean(rig)


@sampled(rename=(1, 5), fsync=(9, 16), unlinkat=(1,))
def test_a_rollback_killed_at_an_arrow_is_old_or_new_and_the_next_command_completes_it(
    trained: Path, tmp_path: Path, call: str, points: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = places(trained, tmp_path, monkeypatch)

    def strike(point: int) -> bool:
        rig = copied(trained / "two", tmp_path / "w", monkeypatch)
        is_met = struck(rig, call, point, "versions", "rollback", "base")
        listed = run(command(rig, "versions", "--json"))
        assert listed.returncode == 0, listed.stderr
        assert_clean(rig)
        here = rig.here()
        assert here in (before, after), "between old and new"
        if here == before:
            rig.roll_back("base")
            assert rig.here() == after
        assert told(rig, "version.rolled_back") == 1
        rig.roll_back("v002")
        assert rig.here() == before
        return is_met

    sweep("rollback", call, points, strike)


def places(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], dict[str, str]]:
    rig = copied(trained / "two", tmp_path / "undisturbed", monkeypatch)
    before = rig.here()
    rig.roll_back("base")
    after = rig.here()
    assert before != after
    return before, after


@pytest.mark.parametrize(
    ("site", "action"), [("merge:3", "kill"), ("merge:4", "disk_full"), ("merged:1", "raise"), ("merged:1", "exit0")]
)
def test_a_merge_that_fails_in_the_middle_changes_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, action: str
) -> None:
    rig = copied(trained / "one", tmp_path / "w", monkeypatch)
    before = rig.here()
    with monkeypatch.context() as armed:
        armed.setenv("OVERNIGHT_FAULT", f"{site}:{action}")
        failed = run(command(rig, "consolidate", "-m", "x", "--json"))
    assert failed.returncode == (73 if action == "disk_full" else 1), failed.stderr
    assert rig.here() == before
    assert list(rig.layout.versions.iterdir()) == []
    assert not rig.layout.transition.exists()
    if action == "kill":
        assert rig.consolidate().id == "v001"
