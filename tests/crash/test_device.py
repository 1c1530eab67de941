"""Faults of a device, as far as a machine without one can have them."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from overnight.daemon.planning import frozen
from overnight.disk import builtin, checkpoints
from overnight.domain.attempt import FailureKind, Outcome
from overnight.domain.checkpoint import Manifest
from overnight.domain.config import Settings
from overnight.domain.job import JobState
from overnight.launchers.choice import SIMULATED
from simulated_rig import SETTINGS, Rig

pytestmark = pytest.mark.crash


def test_a_hang_in_native_code_that_hears_no_signal_is_killed_and_costs_nothing_but_time(rig: Rig) -> None:
    rig.simulate(fault="deaf@8:1")
    rig.make(files=1, watch__no_progress_s=1.0, watch__grace_s=0.3)
    rig.tick_until(rig.context(), rig.is_done, timeout=40)
    first, second = rig.attempts()
    assert (first.outcome, first.signal) == (Outcome.HUNG, signal.SIGKILL), "TERM and stacks are of no use there"
    assert (second.outcome, second.first_step) == (Outcome.COMPLETED, 5)
    assert rig.jobs()[0].charged == 0
    ledger = rig.model()["ledger"]
    assert len(ledger) == len(set(ledger)) == 64


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_model_begun_on_a_device_that_is_not_there_waits_for_it_and_is_never_charged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    rig.make(files=1)
    commit_as_trained_on(rig, "cuda")
    builtin.make_tiny(rig.layout.base / "tiny")
    monkeypatch.delenv(SIMULATED)  # the real trainer judges
    context = rig.context()
    rig.tick_until(context, lambda: rig.events("job.retry"), timeout=120)
    attempt = rig.attempts()[0]
    assert (attempt.outcome, attempt.kind) == (Outcome.CRASHED, FailureKind.GPU_HARDWARE)
    assert "was trained on cuda" in attempt.reason
    assert "train.device" in attempt.reason
    (job,) = rig.jobs()
    assert job.state is JobState.QUEUED
    assert job.charged == 0
    rig.tick_until(context, lambda: context.standing.state == "waiting", timeout=60)
    assert "was trained on cuda" in context.standing.reason, "status says what it waits for"
    assert [path.name for path in rig.layout.model.iterdir()] == ["checkpoint-7"], "nothing was begun on the CPU"


def commit_as_trained_on(rig: Rig, device: str) -> None:
    """Commit a checkpoint of an earlier job whose manifest names a device."""
    settings: dict[str, Any] = frozen(Settings.model_validate(SETTINGS))
    locked = {key: settings[key] for key in ("model_name", "base_model", "max_length", "method", "seed")}
    staging = rig.layout.model / ".staging"
    staging.mkdir()
    (staging / "weights.bin").write_bytes(b"weights")
    manifest = Manifest(
        step=7, job=99, job_step=7, job_total=7, start_step=0, attempt="000099-01", dataset_id="0" * 64,
        created_at=0.0, model_name="simulated", method="lora",
        locked={**locked, **{f"lora.{key}": value for key, value in settings["lora"].items()}},
        data_cursor={"rows": 28}, fingerprints={"dataset": "0" * 64}, environment={"threads": 1, "device": device},
        files={},
    )  # fmt: skip
    checkpoints.commit(staging, rig.layout.checkpoint(7), manifest)
