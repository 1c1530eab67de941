"""What is refused, and that nothing has changed then: training, too little space, what is not whole, what is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_rig import corrupt, names
from overnight import removal
from overnight.control import versions as control
from overnight.database import events
from overnight.disk import attempts, trash, versions
from overnight.domain.errors import BusyError, DiskError, FailedError, UsageError
from overnight.domain.job import JobState
from overnight.status.answers import to_json
from overnight.status.snapshot import snapshot
from version_rig import VersionRig


def overnight(rig: VersionRig, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), *words]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    rig.processes.append(child)
    return child


def delete(rig: VersionRig, identity: str) -> None:
    connection = rig.connect()
    try:
        control.delete(rig.layout, connection, identity, now=0.0)
    finally:
        connection.close()


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_while_a_trainer_works_nothing_is_published_put_in_use_or_deleted(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    rig.roll_back("base")
    rig.simulate(fault="hang@3")
    rig.submit("b.jsonl", rows=64)
    context = rig.context()
    rig.tick_until(context, lambda: rig.trainer_pid() is not None and rig.step() >= 10, timeout=60)
    before = rig.here()
    told = overnight(rig, "consolidate", "-m", "x")
    _, err = told.communicate(timeout=60)
    assert told.returncode == 75
    assert b"ABORT: training is active" in err
    assert f"pid {rig.trainer_pid()}".encode() in err
    for refused in (lambda: rig.roll_back("v001"), lambda: delete(rig, "v001"), lambda: rig.consolidate()):
        with pytest.raises(BusyError, match="ABORT: training is active"):
            refused()
    assert rig.here() == before
    assert versions.identities(rig.layout) == ["v001"]


def test_no_training_starts_while_a_version_is_made_and_the_next_job_is_trained_on_it(
    rig: VersionRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.train("a.jsonl")
    release = tmp_path / "release"
    with monkeypatch.context() as armed:
        armed.setenv("OVERNIGHT_FAULT", "merge:2:held")
        armed.setenv("OVERNIGHT_FAULT_RELEASE", str(release))
        making = overnight(rig, "consolidate", "-m", "held")
    rig.wait(lambda: attempts.read_heartbeat(rig.layout.consolidation), timeout=60, what="the merge")
    connection = rig.connect()
    shot = to_json(snapshot(rig.layout, connection, now=0))
    connection.close()
    assert (shot["consolidation"]["pid"], shot["consolidation"]["phase"]) == (making.pid, "merging")
    assert shot["consolidation"]["part"] >= 1
    assert shot["state"] in ("idle", "stopped"), shot["reason"]
    rig.submit("b.jsonl", rows=32)
    context = rig.context()
    rig.tick_until(context, lambda: "a version is being made" in context.standing.reason, timeout=60)
    assert context.standing.state == "waiting"
    assert [attempt.job for attempt in rig.attempts()] == [1]
    with pytest.raises(BusyError):
        rig.consolidate("a second one at once")
    release.touch()
    making.communicate(timeout=60)
    assert making.returncode == 0
    rig.tick_until(context, rig.is_done, timeout=60)
    newest = versions.read(rig.layout.versions / "v001")
    manifest = json.loads((rig.layout.checkpoint(16) / "manifest.json").read_text())
    assert manifest["fingerprints"]["base_model"] == newest.fingerprints["base_model"]
    assert versions.identities(rig.layout) == ["v001"]


def test_many_creations_at_once_make_one_version_and_no_half_one(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    children = [overnight(rig, "consolidate", "-m", f"number {number}") for number in range(6)]
    for child in children:
        child.communicate(timeout=120)
    codes = [child.returncode for child in children]
    assert codes.count(0) == 1, codes
    assert set(codes) <= {0, 1, 75}
    assert [report.state.value for report in versions.listing(rig.layout, in_use="v001")] == ["ok"]
    assert [path.name for path in rig.layout.versions.iterdir()] == ["v001"]


def test_no_id_is_given_twice_and_v999_is_followed_by_v1000(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    assert rig.consolidate().id == "v001"
    rig.roll_back("base")
    delete(rig, "v001")
    assert rig.consolidate().id == "v002"
    rig.roll_back("base")
    shutil.copytree(rig.layout.versions / "v002", rig.layout.versions / "v999")
    assert rig.consolidate().id == "v1000"
    rig.roll_back("base")
    for other in ("v100", "v10", "v1"):
        with pytest.raises(UsageError):
            rig.roll_back(other)
    assert rig.roll_back("v1000").version == "v1000"


@pytest.mark.parametrize("short", ["bytes", "inodes"])
def test_a_version_that_cannot_fit_is_refused_before_anything_is_written(
    rig: VersionRig, monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    rig.train("a.jsonl")
    size = "size=16m" if short == "bytes" else "size=256m,nr_inodes=20"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(rig.layout.versions)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        before = rig.here()
        with pytest.raises(DiskError, match="does not fit"):
            rig.consolidate()
        assert rig.here() == before
        assert list(rig.layout.versions.iterdir()) == []
        assert not rig.layout.consolidation.exists()
    finally:
        subprocess.run(["umount", "-l", str(rig.layout.versions)], check=False)
    assert rig.consolidate().id == "v001"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to fail a system call")
@pytest.mark.parametrize("point", [4, 24])
def test_a_disk_error_in_the_middle_leaves_old_or_new(rig: VersionRig, point: int) -> None:
    rig.train("a.jsonl")
    before = rig.here()
    command = [sys.executable, "-m", "overnight", "-C", str(rig.layout.root), "consolidate", "-m", "x"]
    strace = ["strace", "-qq", "-o", os.devnull, "-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={point}"]
    failed = subprocess.run([*strace, *command], capture_output=True, timeout=120, check=False)
    assert failed.returncode == 73, failed.stderr
    assert b"input/output error" in failed.stderr
    listed = subprocess.run([*command[:5], "versions", "--json"], capture_output=True, timeout=120, check=True)
    if json.loads(listed.stdout)["versions"]:
        assert json.loads(rig.layout.config.read_text())["base_model"] == "models/v001"
    else:
        assert rig.here() == before
        assert rig.consolidate().id == "v001"
    assert not rig.layout.transition.exists()
    assert [path.name for path in rig.layout.versions.iterdir()] == ["v001"]


WORDS = ["../../x", "x" * 500, "a\nb", "", "🙂", "\x1b[2J", "a\udcffb"]


def test_a_description_is_text_whatever_it_is(rig: VersionRig, tmp_path: Path) -> None:
    rig.train("a.jsonl")
    outside = set(tmp_path.rglob("*")) - set(rig.layout.root.rglob("*"))
    for number, words in enumerate(WORDS, start=1):
        version = rig.consolidate(words)
        assert version.id == f"v{number:03d}"
        kept = versions.read(rig.layout.versions / version.id)
        assert kept.description == words.encode("utf-8", "backslashreplace").decode()
        assert (rig.layout.versions / version.id / "README.md").is_file()
        rig.roll_back("base")
    assert sorted(os.listdir(rig.layout.versions)) == [f"v{number:03d}" for number in range(1, len(WORDS) + 1)]
    assert set(tmp_path.rglob("*")) - set(rig.layout.root.rglob("*")) == outside


def test_no_version_is_made_of_an_older_checkpoint_while_the_newest_is_damaged(rig: VersionRig, tmp_path: Path) -> None:
    rig.train("a.jsonl")
    assert sorted(names(rig.layout)) == ["checkpoint-5", "checkpoint-8"]
    corrupt(rig.layout.checkpoint(8))
    before = rig.here()
    with pytest.raises(FailedError, match="checkpoint-8 is corrupt; checkpoint-5 is not published in its place"):
        rig.consolidate()
    assert rig.here() == before
    rig.layout.checkpoint(8).rename(tmp_path / "checkpoint-8")  # what the error says: then the older one is meant
    rig.consolidate()


def test_one_flipped_bit_is_found_and_never_put_in_use(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    rig.train("b.jsonl")
    rig.consolidate()
    flip(rig.layout.versions / "v001" / "model.safetensors")
    before = rig.here()
    with pytest.raises(FailedError, match="v001 is corrupt"):
        rig.roll_back()
    assert rig.here() == before
    assert control.verify(rig.layout, "v001").state == "corrupt"


def test_nothing_is_trained_on_a_version_in_which_a_bit_was_flipped(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    flip(rig.layout.versions / "v001" / "state.json")
    rig.submit("b.jsonl", rows=8)
    context = rig.context()
    rig.tick_until(context, lambda: "not the one" in context.standing.reason, timeout=60)
    assert [attempt.job for attempt in rig.attempts()] == [1]


def test_the_version_in_use_and_a_parent_are_not_deleted(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    rig.train("b.jsonl")
    rig.consolidate()
    for identity, why in (("v002", "in use"), ("v001", "parent of v002")):
        with pytest.raises(BusyError, match=why):
            delete(rig, identity)
    rig.roll_back("v001")
    delete(rig, "v002")
    assert versions.identities(rig.layout) == ["v001"]
    assert not (rig.layout.history / "before-v002").exists()
    resting = {item.name.partition(".")[0] for item in trash.listing(rig.layout)}
    assert {"v002", "before-v002"} <= resting
    for item in removal.plan_trash(rig.layout, trash_days=0.0, min_free_gb=0.0):
        assert removal.remove_resting(rig.layout, item)
    assert trash.listing(rig.layout) == []


def test_nobody_is_asked_where_nobody_can_answer(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    rig.roll_back("base")
    asked = overnight(rig, "versions", "delete", "v001")
    _, err = asked.communicate(timeout=60)
    assert asked.returncode == 2
    assert b"--yes" in err
    assert versions.identities(rig.layout) == ["v001"]
    agreed = overnight(rig, "versions", "delete", "v001", "--yes", "--json")
    out, _ = agreed.communicate(timeout=60)
    assert json.loads(out)["deleted"] == "v001"


def test_a_version_deleted_by_hand_is_listed_as_broken(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    rig.consolidate()
    rig.train("b.jsonl")
    rig.consolidate()
    shutil.rmtree(rig.layout.versions / "v001")
    (rig.layout.versions / "v002" / "manifest.json").unlink()
    found = {report.id: (report.state.value, report.reason) for report in control.listing(rig.layout)}
    assert found["v002"] == ("incomplete", "it has no manifest: nobody can tell what it is")
    before = rig.here()
    with pytest.raises(UsageError):
        rig.roll_back("v001")
    assert rig.here() == before


def test_clean_up_removes_no_version_and_nothing_of_their_history(rig: VersionRig) -> None:
    rig.set(checkpoint__keep=1)
    rig.train("a.jsonl")
    rig.consolidate()
    rig.train("b.jsonl")
    place = rig.here()
    rig.roll_back("base")
    plan = removal.plan(rig.layout, keep=1, held={})
    for item in plan:
        if not item.is_kept:
            removal.remove(rig.layout, item, record=lambda: None)
    assert {Path(item.path).name for item in plan} <= {"checkpoint-5", "checkpoint-8"}
    context = rig.context()
    rig.tick_until(context, lambda: context.standing.state == "idle", timeout=60)
    rig.roll_back("v001")
    assert rig.here() == place


def test_a_wished_version_is_made_between_two_jobs_whoever_wished_it(rig: VersionRig) -> None:
    rig.submit("a.jsonl", rows=32)
    rig.submit("b.jsonl", rows=32)
    rig.simulate(fault="kill@3:1")
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 2, timeout=60)
    rig.wish("consolidate", description="wished for", token="t1")
    context.close()  # the loop that began it is gone
    again = rig.context()
    rig.tick_until(again, rig.is_done, timeout=90)
    version = versions.read(rig.layout.versions / "v001")
    assert (version.description, version.step) == ("wished for", 8)
    manifest = json.loads((rig.layout.checkpoint(16) / "manifest.json").read_text())
    assert manifest["fingerprints"]["base_model"] == version.fingerprints["base_model"]
    assert manifest["start_step"] == 8
    connection = rig.connect()
    assert [event["data"]["wish"] for event in events.of_kind_after(connection, "version.published", 0)] == ["t1"]
    connection.close()


def test_a_wish_that_cannot_be_met_is_told_and_holds_nobody_up(rig: VersionRig) -> None:
    rig.wish("consolidate", description="too early", token="t2")
    rig.submit("a.jsonl", rows=8)
    context = rig.context()
    rig.tick_until(context, rig.is_done, timeout=60)
    (failed,) = rig.events("version.failed")
    assert failed["data"]["wish"] == "t2"
    assert "Nothing was trained yet" in failed["message"]


def test_without_a_daemon_a_version_that_waits_its_turn_is_made_at_once(rig: VersionRig) -> None:
    rig.train("a.jsonl")
    made = overnight(rig, "consolidate", "-m", "alone", "--wait", "--json")
    out, err = made.communicate(timeout=120)
    assert made.returncode == 0, err
    assert json.loads(out)["version"]["id"] == "v001"
    assert not [event for event in rig.events("version.failed")]


def test_a_half_trained_job_is_no_place_for_a_version(rig: VersionRig) -> None:
    rig.submit("a.jsonl", rows=64)
    rig.simulate(step_s=0.05)
    context = rig.context()
    rig.tick_until(context, lambda: rig.step() >= 6, timeout=60)
    rig.wish("paused", reason="here")
    rig.tick_until(context, lambda: context.standing.state == "paused", timeout=60)
    assert rig.jobs()[0].state is JobState.QUEUED
    before = rig.here()
    with pytest.raises(BusyError, match="half trained"):
        rig.consolidate()
    assert rig.here() == before


def test_a_merge_whose_starter_was_killed_is_ended_and_work_goes_on(
    rig: VersionRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.train("a.jsonl")
    before = rig.here()
    with monkeypatch.context() as armed:
        armed.setenv("OVERNIGHT_FAULT", "merge:3:held")
        armed.setenv("OVERNIGHT_FAULT_RELEASE", str(tmp_path / "never"))
        making = overnight(rig, "consolidate", "-m", "held")
    beat = rig.wait(lambda: attempts.read_heartbeat(rig.layout.consolidation), timeout=60, what="the merge")
    making.kill()
    making.communicate(timeout=60)
    assert Path(f"/proc/{beat.pid}").exists(), "it outlived its starter"
    rig.submit("b.jsonl", rows=32)
    context = rig.context()
    rig.tick_until(context, lambda: not rig.layout.consolidation.exists(), timeout=60)
    rig.wait(lambda: not Path(f"/proc/{beat.pid}").exists(), timeout=60, what="the end of the merge")
    assert list(rig.layout.versions.iterdir()) == []
    assert {name: value for name, value in rig.here().items() if name in before} == before
    rig.tick_until(context, rig.is_done, timeout=60)
