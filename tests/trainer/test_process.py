"""The trainer as a process: killed, asked to leave, broken in every way; it always leaves a report or a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rig import Rig, sums

from overnight.disk import attempts
from overnight.domain.attempt import FailureKind, Outcome, Phase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

DROPOUT = {"lora__dropout": 0.1, "train__gradient_accumulation_steps": 2, "train__epochs": 2}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The state of an undisturbed run, made in this process: another process must reach the same bytes."""
    rig = Rig(tmp_path_factory.mktemp("undisturbed"), **DROPOUT)
    rig.train(1, rig.rows(sums(1, 50), "a"))
    return rig.state()


@pytest.mark.crash
def test_killed_from_outside_and_launched_again_it_ends_with_the_same_bytes(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    rig = Rig(tmp_path, **DROPOUT)
    rows = rig.rows(sums(1, 50), "a")
    first = rig.launch(rig.spec(1, rows), OVERNIGHT_FAULT="step:8:sleep")
    first.until(lambda heartbeat: heartbeat.checkpoint == 6)
    first.process.send_signal(signal.SIGKILL)
    assert first.end() == (-signal.SIGKILL, None)

    again = rig.spec(1, rows)
    assert (again.mode, again.checkpoint) == ("resume", str(rig.layout.checkpoint(6)))
    code, report = rig.launch(again).end()
    assert report is not None
    assert (code, report.outcome, report.step) == (0, Outcome.COMPLETED, 14)
    assert rig.state() == expected


@pytest.mark.crash
@pytest.mark.parametrize("way", ["SIGTERM", "notice"])
def test_asked_to_leave_it_saves_at_a_step_border_and_goes_on_with_the_same_bytes(
    tmp_path: Path, expected: dict[str, str], way: str
) -> None:
    rig = Rig(tmp_path, **{**DROPOUT, "checkpoint__every_steps": 100})
    rows = rig.rows(sums(1, 50), "a")
    release = tmp_path / "release"
    fault = {"OVERNIGHT_FAULT": "step:5:held", "OVERNIGHT_FAULT_RELEASE": str(release)}
    first = rig.launch(rig.spec(1, rows), **fault)
    first.until(lambda heartbeat: heartbeat.phase is Phase.TRAINING)
    asked_at = time.monotonic()
    if way == "notice":
        attempts.write_notice(first.folder, attempts.Notice(wish=attempts.Wish.SAVE_AND_LEAVE, reason="paused by you"))
    else:
        first.process.send_signal(signal.SIGTERM)
    release.touch()
    code, report = first.end()
    assert time.monotonic() - asked_at < 30
    assert report is not None
    assert (code, report.outcome, report.kind) == (75, Outcome.PREEMPTED, None)
    assert ("paused by you" if way == "notice" else way) in report.message
    assert report.checkpoint == report.step
    assert 0 < report.step <= 5
    code, report = rig.launch(rig.spec(1, rows)).end()
    assert code == 0
    differing = {name for name, value in rig.state().items() if value != expected[name]}
    assert differing <= {"trainer_state.json"}, "it names save_steps, which differ here"


def test_asked_to_leave_while_loading_it_leaves_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    trainer = rig.launch(rig.spec(1, rig.rows(sums(1, 8), "a")))
    heartbeat = trainer.until(lambda heartbeat: heartbeat.phase is Phase.LOADING)
    assert heartbeat.step == 0
    time.sleep(0.3)  # amid the imports
    trainer.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code, report = trainer.end()
    assert report is not None
    assert (code, report.outcome, report.checkpoint) == (75, Outcome.PREEMPTED, None)
    assert time.monotonic() - started < 10


def test_the_first_heartbeat_comes_before_torch(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = time.monotonic()
    trainer = rig.launch(rig.spec(1, rig.rows(sums(1, 8), "a")), OVERNIGHT_FAULT="load:1:sleep")
    heartbeat = trainer.until(lambda heartbeat: True, timeout=60)
    assert time.monotonic() - started < 30
    assert heartbeat.phase is Phase.LOADING
    maps = Path(f"/proc/{trainer.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    trainer.process.kill()
    trainer.end()


FAULTS = {
    "load:1:import": (1, FailureKind.DEPENDENCY),
    "load:1:memory": (1, FailureKind.HOST_OOM),
    "load:1:interrupt": (1, FailureKind.USER_INTERRUPT),
    "load:1:system_exit": (1, FailureKind.CODE_ERROR),
    "load:1:disk_full": (1, FailureKind.DISK_FULL),
    "load:1:raise": (1, FailureKind.CODE_ERROR),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_ends_it_there_is_a_typed_report_with_its_traceback(tmp_path: Path, fault: str) -> None:
    rig = Rig(tmp_path)
    code, report = rig.launch(rig.spec(1, rig.rows(sums(1, 8), "a")), OVERNIGHT_FAULT=fault).end()
    assert report is not None
    assert (code, report.kind) == FAULTS[fault]
    assert report.outcome is Outcome.CRASHED
    assert not report.charged
    assert report.traceback is not None
    assert "faults.py" in report.traceback


@pytest.mark.parametrize(
    ("fault", "kind", "charged"),
    [
        ("step:4:system_exit", FailureKind.CODE_ERROR, False),
        ("step:4:interrupt", FailureKind.USER_INTERRUPT, False),
        ("step:4:cuda_oom", FailureKind.CUDA_OOM, False),
        ("step:4:memory", FailureKind.HOST_OOM, False),
        ("step:4:nan", FailureKind.NAN_LOSS, True),
        ("save:2:nan", FailureKind.NAN_LOSS, True),
        ("save:2:disk_full", FailureKind.DISK_FULL, False),
    ],
)
def test_a_failure_in_training_is_typed_and_saves_nothing(
    tmp_path: Path, fault: str, kind: FailureKind, charged: bool
) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=3)
    report = rig.run(rig.spec(1, rig.rows(sums(1, 40), "a")), fault=fault)
    assert (report.outcome, report.kind, report.charged) == (Outcome.CRASHED, kind, charged)
    assert report.checkpoint == 3
    assert sorted(path.name for path in rig.layout.model.iterdir()) == ["checkpoint-3"]
    assert report.traceback
    if fault == "step:4:nan":
        assert report.step == 3, "the step was not made"
        assert "step 4 of this job" in report.message
        assert "in rows" in report.message
        named = [int(part) for part in report.message.split("in rows ")[1].split(")")[0].split(",")]
        assert len(named) == 4
        assert all(1 <= number <= 40 for number in named)


def test_a_gradient_that_overflows_under_a_finite_loss_ends_the_attempt_before_anything_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overnight.trainer import callbacks

    really = callbacks.Guard._keep

    def deaf(self: callbacks.Guard, module: Any, arguments: Any, output: Any) -> None:
        really(self, module, arguments, output)
        self._losses[-1] = self._losses[-1] * 0 + 1 if self._losses[-1].isfinite() else self._losses[-1].new_tensor(1.0)

    monkeypatch.setattr(callbacks.Guard, "_keep", deaf)
    rig = Rig(tmp_path, method="full", checkpoint__every_steps=1)
    report = rig.run(rig.spec(1, rig.rows(sums(1, 40), "a")), fault="step:3:nan")
    assert (report.kind, report.checkpoint) == (FailureKind.NAN_LOSS, 2)
    assert "The gradient is no number at step 3" in report.message


@pytest.mark.crash
@pytest.mark.parametrize(("fault", "code"), [("step:2:exit0", 0), ("step:2:segv", -signal.SIGSEGV)])
def test_an_end_without_words_leaves_no_report(tmp_path: Path, fault: str, code: int) -> None:
    rig = Rig(tmp_path)
    assert rig.launch(rig.spec(1, rig.rows(sums(1, 8), "a")), OVERNIGHT_FAULT=fault).end() == (code, None)


def test_neither_home_nor_temporary_folder_nor_network_is_needed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    trainer = rig.launch(
        rig.spec(1, rig.rows(sums(1, 8), "a")),
        HOME="/nonexistent", TMPDIR="/nonexistent", HF_HOME="/proc/nothing", XDG_CACHE_HOME="/nonexistent",
        HTTPS_PROXY="http://127.0.0.1:9", HF_ENDPOINT="http://127.0.0.1:9", WORLD_SIZE="1",
    )  # fmt: skip
    code, report = trainer.end()
    assert report is not None
    assert (code, report.outcome) == (0, Outcome.COMPLETED), trainer.log()
    left = {path.name for path in trainer.folder.iterdir()}
    assert left == {"spec.json", "heartbeat.json", "metrics.jsonl", "report.json", "trainer.log"}


def test_heartbeats_grow_and_name_their_phases(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluation__holdout=0.2)
    trainer = rig.launch(rig.spec(1, rig.rows(sums(1, 120), "a")))
    seen = []
    while trainer.process.poll() is None:
        heartbeat = attempts.read_heartbeat(trainer.folder)
        if heartbeat is not None and (not seen or heartbeat.progress != seen[-1].progress):
            seen.append(heartbeat)
    _, report = trainer.end()
    assert report is not None
    assert [beat.progress for beat in seen] == sorted({beat.progress for beat in seen})
    assert [beat.step for beat in seen] == sorted(beat.step for beat in seen)
    assert {Phase.LOADING, Phase.TRAINING, Phase.SAVING} <= {beat.phase for beat in seen}
    trained = [beat for beat in seen if beat.phase is Phase.TRAINING and beat.loss is not None]
    assert trained[-1].total == report.total
    assert trained[-1].tokens_per_second is not None
    assert [line["step"] for line in trainer.metrics() if "loss" in line] == list(range(1, report.step + 1))


def test_a_second_trainer_of_the_same_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.trainer import __main__ as entry
    from overnight.trainer.pulse import Pulse
    from overnight.trainer.wishes import Wishes

    rig = Rig(tmp_path)
    rows = rig.rows(sums(1, 8), "a")
    first = rig.launch(rig.spec(1, rows), OVERNIGHT_FAULT="load:1:sleep")
    first.until(lambda heartbeat: True)
    spec = rig.spec(2, rows)
    folder = rig.place(spec)
    monkeypatch.setattr(entry, "LOCK_WAIT_S", 0.3)
    pulse = Pulse(folder, spec)
    with pytest.raises(entry.failures.LockedModelError, match=f"pid {first.process.pid}"):
        entry.take_lock(spec, pulse, Wishes(folder, unwatched_limit_s=1e9))
    first.process.kill()
    first.end()
    entry.take_lock(spec, pulse, Wishes(folder, unwatched_limit_s=1e9))
    entry._HELD.pop().release()


@pytest.mark.crash
def test_a_workspace_moved_mid_run_stops_the_trainer_and_leaves_nothing_where_it_was(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    rig = Rig(tmp_path / "here", **DROPOUT)
    rows = rig.rows(sums(1, 50), "a")
    release = tmp_path / "release"
    first = rig.launch(rig.spec(1, rows), OVERNIGHT_FAULT="step:5:held", OVERNIGHT_FAULT_RELEASE=str(release))
    first.until(lambda heartbeat: heartbeat.checkpoint == 3)
    (tmp_path / "here").rename(tmp_path / "there")
    release.touch()
    assert first.process.wait(60) == 1
    assert not (tmp_path / "here").exists()
    moved = Rig(tmp_path / "there", **DROPOUT)
    moved.launches = {1: 1}
    assert moved.run(moved.spec(1, tmp_path / "there" / rows.relative_to(tmp_path / "here"))).outcome is (
        Outcome.COMPLETED
    )
    assert moved.state() == expected
    newest = moved.newest()
    assert newest is not None
    named = json.loads((Path(newest.path) / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(moved.layout.base / "tiny")


def test_a_trainer_that_nobody_watches_saves_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.trainer import wishes

    monkeypatch.setattr(wishes, "LOOK_EVERY_S", 0.0)
    given = wishes.Wishes(tmp_path, unwatched_limit_s=50)
    assert given.reason() is None, "nobody ever watched: a trainer started by hand"
    (tmp_path / "watched").write_text(f"{attempts.boot_time() - 49:.3f} {attempts.boot_id()}\n")
    assert given.reason() is None
    (tmp_path / "watched").write_text(f"{attempts.boot_time() - 60:.3f} {attempts.boot_id()}\n")
    assert "nobody has looked after" in str(given.reason())
    attempts.touch_watched(tmp_path)
    assert given.reason() is None


def test_an_evaluation_that_never_returns_is_skipped_and_training_goes_on(tmp_path: Path) -> None:
    common = {"evaluation__holdout": 0.2, "evaluation__every_steps": 2, "lora__dropout": 0.1}
    hung = Rig(tmp_path / "a", **common, watch__eval_stuck_s=1.0, watch__no_progress_s=1.0)
    report = hung.run(hung.spec(1, hung.rows(sums(1, 40), "a")), fault="eval:2:sleep")
    fine = Rig(tmp_path / "b", **common)
    fine.train(1, fine.rows(sums(1, 40), "a"))
    assert report.outcome is Outcome.COMPLETED
    assert any("evaluation at step 2 skipped" in note for note in report.notes)
    assert report.eval_loss is not None, "later evaluations are made"
    assert hung.state() == fine.state()


def test_an_evaluation_in_which_the_last_attempt_ended_is_not_tried_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluation__holdout=0.2, evaluation__every_steps=3, checkpoint__every_steps=3)
    rows = rig.rows(sums(1, 40), "a")
    first = rig.launch(rig.spec(1, rows), OVERNIGHT_FAULT="eval:1:sleep")
    first.until(lambda heartbeat: heartbeat.phase is Phase.EVALUATING)
    first.process.kill()
    first.end()
    report = rig.run(rig.spec(1, rows))
    assert any("evaluation at step 3 skipped" in note for note in report.notes)
    assert report.outcome is Outcome.COMPLETED


def test_asked_to_leave_during_an_evaluation_it_leaves_after_a_save(tmp_path: Path) -> None:
    rig = Rig(tmp_path, evaluation__holdout=0.2, evaluation__every_steps=2)
    rows = rig.rows(sums(1, 60), "a")
    report = rig.run(rig.spec(1, rows), fault="eval:2:term")
    assert (report.outcome, report.step, report.checkpoint) == (Outcome.PREEMPTED, 3, 3)
    assert any("abandoned" in note for note in report.notes)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.crash
def test_a_full_disk_is_named_and_the_job_goes_on_when_there_is_room(small_disk: Path) -> None:
    rig = Rig(small_disk, method="full", checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 24), "a")
    report = rig.run(rig.spec(1, rows))  # a checkpoint has 1.3 MB
    assert (report.outcome, report.kind, report.charged) == (Outcome.CRASHED, FailureKind.DISK_FULL, False)
    saved = report.checkpoint
    assert saved is not None
    newest = rig.newest()
    assert newest is not None
    assert newest.step == saved
    assert (rig.layout.attempt("000001-01") / "report.json").exists()
    for path in rig.layout.model.iterdir():
        if path.name != f"checkpoint-{saved}":
            shutil.rmtree(path)
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert rig.run(rig.spec(1, rows)).outcome is Outcome.COMPLETED


@pytest.mark.crash
def test_killed_while_it_tokenises_and_launched_again_it_comes_to_the_same_bytes(tmp_path: Path) -> None:
    states = []
    for name in ("undisturbed", "killed"):
        rig = Rig(tmp_path / name)
        rows = rig.rows(sums(1, 2500), "a")
        if name == "killed":
            trainer = rig.launch(rig.spec(1, rows))
            begun = trainer.folder / "output" / "train.arrow"
            deadline = time.monotonic() + 60
            while not (begun.exists() and begun.stat().st_size > 0):
                assert time.monotonic() < deadline, trainer.log()
                time.sleep(0.002)
            trainer.process.send_signal(signal.SIGKILL)
            assert trainer.end() == (-signal.SIGKILL, None)
            heartbeat = attempts.read_heartbeat(trainer.folder)
            assert heartbeat is not None
            assert (heartbeat.phase, heartbeat.step) == (Phase.LOADING, 0)
        rig.run(rig.spec(1, rows), fault="step:4:raise")
        states.append(rig.state())
    assert states[0] == states[1]


@pytest.mark.crash
def test_a_trainer_has_no_children_and_its_handles_do_not_grow(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=5, evaluation__holdout=0.2, evaluation__every_steps=5)
    trainer = rig.launch(rig.spec(1, rig.rows(sums(1, 240), "a")))
    process = Path(f"/proc/{trainer.process.pid}")
    seen = []
    for step in (7, 32):
        trainer.until(lambda heartbeat, least=step: heartbeat.step >= least and heartbeat.phase is Phase.TRAINING)
        seen.append({os.readlink(path) for path in (process / "fd").iterdir() if path.is_symlink()})
        children = [path.read_text() for path in (process / "task").glob("*/children")]
        assert "".join(children).split() == []
    trainer.process.kill()
    trainer.end()
    assert len(seen[1]) <= len(seen[0]) + 2, seen[1] - seen[0]


BLACK_HOLE = """
ip link set lo up
ip link add hole type dummy && ip address add 192.0.2.1/24 dev hole && ip link set hole up
ip route add default via 192.0.2.2
"$@"
code=$?
cat /proc/net/snmp > "$TOLD"
exit $code
"""


def test_a_network_that_swallows_everything_is_never_asked(tmp_path: Path) -> None:
    if shutil.which("ip") is None or subprocess.run(["unshare", "-n", "true"], check=False).returncode:
        pytest.skip("needs ip and the right to make a network namespace")
    rig = Rig(tmp_path)
    folder = rig.place(rig.spec(1, rig.rows(sums(1, 8), "a")))
    told = tmp_path / "snmp"
    command = ["unshare", "-n", "/bin/sh", "-c", BLACK_HOLE, "sh", sys.executable, "-m", "overnight.trainer", folder]
    done = subprocess.run(command, env={**os.environ, "TOLD": str(told)}, capture_output=True, timeout=120, check=False)
    report = attempts.read_report(folder)
    assert report is not None, done.stderr
    assert report.outcome is Outcome.COMPLETED
    lines = [line.split() for line in told.read_text().splitlines()]
    counts = {
        f"{names[0]}{name}": int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    assert (counts["Tcp:ActiveOpens"], counts["Udp:OutDatagrams"]) == (0, 0)


@pytest.mark.crash
def test_a_trainer_that_gets_no_memory_says_so_and_blames_nobody(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 400), "a")
    trainer = rig.launch(rig.spec(1, rows), OVERNIGHT_FAULT="step:4:leak")
    trainer.until(lambda heartbeat: heartbeat.step >= 1)
    size = int(Path(f"/proc/{trainer.process.pid}/statm").read_text().split()[0]) * 4096
    resource.prlimit(trainer.process.pid, resource.RLIMIT_AS, (size + (256 << 20), size + (256 << 20)))
    code, report = trainer.end()
    assert report is not None
    assert (code, report.kind, report.charged) == (1, FailureKind.HOST_OOM, False)
    assert report.checkpoint is not None, "what was saved before stays"


def test_libraries_that_find_no_memory_are_not_called_broken(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    spec = rig.spec(1, rig.rows(sums(1, 8), "a"))
    folder = rig.place(spec)
    limit = f"ulimit -v {400 << 10} && exec {sys.executable} -m overnight.trainer {folder}"
    done = subprocess.run(["/bin/sh", "-c", limit], capture_output=True, text=True, check=False, timeout=60)
    report = attempts.read_report(folder)
    assert report is not None, done.stderr[-2000:]
    assert (report.kind, report.charged) == (FailureKind.HOST_OOM, False)


def test_qlora_without_its_library_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is here")
    rig = Rig(tmp_path, method="qlora")
    started = time.monotonic()
    code, report = rig.launch(rig.spec(1, rig.rows(sums(1, 8), "a"))).end()
    assert report is not None
    assert (code, report.kind, report.charged) == (1, FailureKind.DEPENDENCY, False)
    assert "bitsandbytes" in report.message
    assert time.monotonic() - started < 30


def test_qlora_trains_and_resumes_where_bitsandbytes_is(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    states = []
    for name, fault in (("a", None), ("b", "step:5:raise")):
        rig = Rig(tmp_path / name, method="qlora", lora__dropout=0.1)
        rig.train(1, rig.rows(sums(1, 32), "a"), fault=fault)
        states.append(rig.state())
    assert states[0] == states[1]
    assert all("float32" in value for name, value in states[0].items() if ".safetensors" in name)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    rig = Rig(tmp_path, train__device="cuda")
    report = rig.run(rig.spec(1, rig.rows(sums(1, 8), "a")))
    assert (report.kind, report.charged) == (FailureKind.GPU_HARDWARE, False)
    assert "cuda" in report.message


def test_a_folder_without_a_spec_and_a_call_without_a_folder_are_told(tmp_path: Path) -> None:
    for arguments, code in (([], 2), ([str(tmp_path)], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "overnight.trainer", *arguments], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == code
        assert done.stderr
        assert "Traceback" not in done.stderr


def test_a_spec_with_refused_settings_is_reported_not_raised(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    spec = rig.spec(1, rig.rows(sums(1, 8), "a"), settings={"model_name": "x"})
    code, report = rig.launch(spec).end()
    assert report is not None
    assert (code, report.kind, report.charged) == (1, FailureKind.CONFIG_ERROR, False)
    assert json.loads((rig.layout.attempt(spec.attempt) / "report.json").read_text())["outcome"] == "crashed"
