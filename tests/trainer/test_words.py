"""What the trainer says of itself, without torch: reports, heartbeats, fault points, the ground it stands on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, sums

from overnight.disk import attempts, files
from overnight.domain.attempt import FailureKind, Outcome, Phase
from overnight.domain.errors import ConfigError, DataError, DiskError
from overnight.trainer import environment, failures, faults
from overnight.trainer.batches import BatchLog
from overnight.trainer.pulse import PAUSE_S, Pulse

K = FailureKind


@pytest.fixture
def pulse(tmp_path: Path) -> Pulse:
    rig = Rig(tmp_path)
    spec = rig.spec(1, rig.rows(sums(1, 4), "a"))
    return Pulse(rig.place(spec), spec)


def test_importing_the_entry_loads_no_torch() -> None:
    code = (
        "import sys, overnight.trainer.__main__;"
        "sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


HUB = type("HfHubHTTPError", (OSError,), {"__module__": "huggingface_hub.errors"})
CASES: list[tuple[BaseException, FailureKind, bool]] = [
    (failures.NonFiniteError("x"), K.NAN_LOSS, True),
    (DataError("x"), K.DATA_FORMAT, True),
    (ConfigError("x"), K.CONFIG_ERROR, False),
    (DiskError("x"), K.DISK_FULL, False),
    (failures.MismatchError("x"), K.CHECKPOINT_MISMATCH, False),
    (failures.CorruptError("x"), K.CHECKPOINT_CORRUPT, False),
    (failures.MissingPartError("x"), K.DEPENDENCY, False),
    (failures.DeviceGoneError("x"), K.GPU_HARDWARE, False),
    (ModuleNotFoundError("No module named 'peft'"), K.DEPENDENCY, False),
    (MemoryError(), K.HOST_OOM, False),
    (KeyboardInterrupt(), K.USER_INTERRUPT, False),
    (SystemExit(0), K.CODE_ERROR, False),
    (OutOfMemoryError("CUDA out of memory"), K.CUDA_OOM, False),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), K.CUDA_OOM, False),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), K.HOST_OOM, False),
    (RuntimeError("CUDA error: unspecified launch failure"), K.CUDA_ERROR, False),
    (RuntimeError("The NVIDIA driver on your system is too old"), K.DRIVER_MISMATCH, False),
    (OSError(errno.ENOSPC, "No space left on device"), K.DISK_FULL, False),
    (OSError(errno.EROFS, "Read-only file system"), K.DISK_FULL, False),
    (OSError(errno.EMFILE, "Too many open files"), K.TOO_MANY_FILES, False),
    (PermissionError(errno.EACCES, "Permission denied"), K.PERMISSION, False),
    (FileNotFoundError(errno.ENOENT, "No such file"), K.FILE_NOT_FOUND, False),
    (RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"), K.DISK_FULL, False),
    (Exception("I/O error: No space left on device (os error 28)"), K.DISK_FULL, False),
    (caused(RuntimeError("save failed"), OSError(errno.ENOSPC, "No space left")), K.DISK_FULL, False),
    (HUB("404 Client Error"), K.NETWORK_HUB, False),
    (OSError("We couldn't connect to 'https://huggingface.co' to load the files"), K.NETWORK_HUB, False),
    (RuntimeError("Error(s) in loading state_dict for Llama: size mismatch for w"), K.CHECKPOINT_MISMATCH, False),
    (ZeroDivisionError("division by zero"), K.CODE_ERROR, False),
]


@pytest.mark.parametrize(("error", "kind", "charged"), CASES, ids=lambda value: repr(value)[:60])
def test_each_failure_has_its_kind_and_only_the_jobs_own_faults_are_charged(
    error: BaseException, kind: FailureKind, charged: bool
) -> None:
    failure = failures.judge(error)
    assert (failure.kind, failure.charged) == (kind, charged)
    assert failure.message


def test_a_strangers_error_is_told_in_four_parts_and_one_screen() -> None:
    message = failures.judge(RuntimeError("CUDA out of memory.\n" + "x" * 9999)).message
    assert "Found:" in message
    assert "To do:" in message
    assert len(message) < 1000


def test_heartbeats_are_written_a_few_times_a_second_and_at_each_new_phase(pulse: Pulse) -> None:
    pulse.enter(Phase.TRAINING)
    first = attempts.read_heartbeat(pulse.folder)
    for _ in range(1000):
        pulse.beat()
    assert attempts.read_heartbeat(pulse.folder) == first, "no more than one in a quarter of a second"
    time.sleep(PAUSE_S)
    pulse.loss = float("nan")
    pulse.beat()
    second = attempts.read_heartbeat(pulse.folder)
    assert first is not None
    assert second is not None
    assert second.progress == first.progress + 1001
    assert second.phase_since == first.phase_since
    assert second.loss is None
    pulse.enter(Phase.SAVING)
    third = attempts.read_heartbeat(pulse.folder)
    assert third is not None
    assert (third.phase, third.pid) == (Phase.SAVING, os.getpid())


def test_numbers_reach_the_disk_in_order_and_none_is_lost(pulse: Pulse) -> None:
    for step in range(500):
        pulse.record({"step": step})
    pulse.flush()
    lines = [json.loads(line)["step"] for line in (pulse.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(500))


def test_a_full_disk_stops_neither_heartbeat_nor_numbers(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "append_line", refuse)
        patch.setattr(attempts, "write_heartbeat", refuse)
        pulse.enter(Phase.TRAINING)
        pulse.record({"step": 1})
        pulse.flush()
    pulse.record({"step": 2})
    pulse.flush()
    assert [json.loads(line)["step"] for line in (pulse.folder / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_speed_and_remaining_time_come_from_the_last_steps(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pulse.job_total = 100
    for step in range(1, 51):
        now[0] += 2.0
        pulse.job_step = step
        pulse.measure(tokens=100)
    assert pulse.tokens_per_second == pytest.approx(50)
    assert pulse.eta_s == pytest.approx(100)


def test_a_resumed_attempt_says_from_the_start_where_it_stands(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rows = rig.rows(sums(1, 4), "a")
    spec = rig.spec(2, rows, mode="resume", checkpoint=str(rig.layout.checkpoint(37)), start_step=30)
    pulse = Pulse(rig.place(spec), spec)
    assert (pulse.step, pulse.job_step, pulse.checkpoint) == (37, 7, 37)
    report = pulse.report(Outcome.PREEMPTED, "left")
    assert (report.step, report.job_step, report.checkpoint) == (37, 7, 37)


def test_fault_points_are_inert_unless_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    inert = faults.from_environment("000001-01")
    for count in range(10):
        inert.reach("step", count)

    monkeypatch.setenv(faults.VARIABLE, "step:3:raise:once")
    armed = faults.from_environment("000001-01")
    armed.reach("step", 2)
    armed.reach("save", 3)
    with pytest.raises(faults.PlannedFault):
        armed.reach("step", 3)
    faults.from_environment("000001-02").reach("step", 3)

    monkeypatch.setenv(faults.VARIABLE, "eval:2:memory")
    counted = faults.from_environment("000001-02")
    counted.reach("eval")
    with pytest.raises(MemoryError):
        counted.reach("eval")


def test_the_ground_needs_no_home_and_no_network_for_a_local_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_OFFLINE", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    rig = Rig(tmp_path)
    spec = rig.spec(1, rig.rows(sums(1, 4), "a"), threads=3)
    environment.arrange(spec, tmp_path / "scratch")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2", "one process uses one GPU"
    assert all(os.environ[name].startswith(str(tmp_path)) for name in ("HF_HOME", "TMPDIR", "HF_DATASETS_CACHE"))


def test_differences_of_ground_are_named_and_new_facts_are_not() -> None:
    before = {"torch": "2.1", "threads": 1, "cpu_capability": "AVX2"}
    now = {**before, "threads": 2, "cpu_capability": "DEFAULT", "peft": "1"}
    assert environment.differences(before, now) == ["threads 1 -> 2", "cpu_capability AVX2 -> DEFAULT"]
    assert environment.differences(before, before) == []


def test_batches_are_told_in_the_order_in_which_they_were_collated() -> None:
    log = BatchLog(lambda examples: {"count": len(examples)})
    log([{"input_ids": [1, 2], "row": 5}, {"input_ids": [3], "row": 9}])
    log([{"input_ids": [1]}])
    assert (log.next().rows, log.next().rows, log.next().rows) == ([5, 9], [], [])
    log([{"input_ids": [1]}])
    log.forget()
    assert log.next().tokens == 0
