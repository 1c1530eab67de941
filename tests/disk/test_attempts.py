"""Both ends of the attempt directory understand each other, and damage is told apart from absence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from overnight.disk import attempts
from overnight.domain.attempt import FailureKind, Heartbeat, Outcome, Phase, Report, Spec
from overnight.domain.merge import MergeReport, MergeSpec, Problem

SPEC = Spec(
    kind="fit", attempt="000001-01", job=1, workspace="/w", dataset="/w/rows", dataset_id="abc", settings={"seed": 1},
    base_model="/b", base_fingerprint=None, start_step=0, checkpoint=None, mode="fresh", seed=7, threads=1,
    created_at=1.5,
)  # fmt: skip
HEARTBEAT = Heartbeat(
    attempt="000001-01", pid=1, phase=Phase.TRAINING, progress=3, step=2, total=16, loss=1.5, eval_loss=None,
    learning_rate=1e-4, epoch=0.1, tokens_per_second=10.0, eta_s=3.0, checkpoint=None, phase_since=1.0, beat_at=2.0,
    written_at=3.0, boot_id="b",
)  # fmt: skip
REPORT = Report(
    attempt="000001-01", outcome=Outcome.CRASHED, kind=FailureKind.NAN_LOSS, message="the loss is not a number",
    traceback=None, charged=True, step=3, total=16, job_step=3, checkpoint=None, loss=None, eval_loss=None,
    tokens={"total": 5}, samples=None, notes=["n"], ended_at=4.0,
)  # fmt: skip

MERGE = MergeSpec(
    attempt="merge-01", workspace="/w", base_model="/b", base_fingerprint="blake3:0", checkpoint="/w/checkpoint-3",
    method="lora", target="/w/models/.v001", step=3, probes=["a"],
)  # fmt: skip
MERGE_REPORT = MergeReport(
    attempt="merge-01", outcome=Outcome.CRASHED, message="no", failure=FailureKind.DISK_FULL, files={"a": "b"},
    problem=Problem(code="no_space", what="There is no room", found="1 MB", expected="2 MB", fix="free space"),
)  # fmt: skip


def test_each_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    attempts.write_spec(tmp_path, SPEC)
    attempts.write_heartbeat(tmp_path, HEARTBEAT)
    attempts.write_report(tmp_path, REPORT)
    assert attempts.read_spec(tmp_path) == SPEC
    assert attempts.read_heartbeat(tmp_path) == HEARTBEAT
    assert attempts.read_report(tmp_path) == REPORT


def test_a_merge_s_records_are_read_as_they_were_written_and_its_spec_is_told_from_a_job_s(tmp_path: Path) -> None:
    assert attempts.read_merge_report(tmp_path) is None
    attempts.write_spec(tmp_path, MERGE)
    assert attempts.read_any_spec(tmp_path) == MERGE
    for report in (MERGE_REPORT, dataclasses.replace(MERGE_REPORT, problem=None, outcome=Outcome.COMPLETED)):
        attempts.write_report(tmp_path, report)
        assert attempts.read_merge_report(tmp_path) == report
    assert attempts.read_report(tmp_path) is None
    attempts.write_spec(tmp_path, SPEC)
    assert attempts.read_any_spec(tmp_path) == SPEC


def test_the_last_word_holds_no_secret_whoever_reads_it_later(tmp_path: Path) -> None:
    told = dataclasses.replace(
        REPORT, message="401 for https://me:hunter22@example.org", traceback="ValueError:\nhf_abcdefgh12345678",
        notes=["HF_TOKEN=hf_abcdefgh12345678"],
    )  # fmt: skip
    attempts.write_report(tmp_path, told)
    text = (tmp_path / "report.json").read_text()
    assert "hf_" not in text
    assert "hunter22" not in text
    found = attempts.read_report(tmp_path)
    assert found is not None
    assert found.message == "401 for https://me:[removed]@example.org"


def test_unknown_fields_are_ignored_and_missing_ones_are_not(tmp_path: Path) -> None:
    value = dataclasses.asdict(SPEC)
    (tmp_path / "spec.json").write_text(json.dumps({**value, "from_the_future": 1}))
    assert attempts.read_spec(tmp_path) == SPEC
    del value["seed"]
    (tmp_path / "spec.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="lacks 'seed'"):
        attempts.read_spec(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps({**dataclasses.asdict(SPEC), "schema": 2}))
    with pytest.raises(ValueError, match="schema 2"):
        attempts.read_spec(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 1}'])
def test_a_damaged_heartbeat_or_report_is_as_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "heartbeat.json").write_bytes(damage)
    (tmp_path / "report.json").write_bytes(damage)
    assert attempts.read_heartbeat(tmp_path) is None
    assert attempts.read_report(tmp_path) is None


def test_a_notice_that_cannot_be_read_still_means_save_and_leave(tmp_path: Path) -> None:
    assert attempts.read_notice(tmp_path) is None
    wish = attempts.Notice(wish=attempts.Wish.SAVE_AND_LEAVE, reason="paused")
    attempts.write_notice(tmp_path, wish)
    assert attempts.read_notice(tmp_path) == wish
    (tmp_path / "notice.json").write_text("torn")
    told = attempts.read_notice(tmp_path)
    assert told is not None
    assert told.wish is attempts.Wish.SAVE_AND_LEAVE


def test_watching_is_compared_inside_one_boot_only(tmp_path: Path) -> None:
    assert attempts.unwatched_s(tmp_path) is None
    attempts.touch_watched(tmp_path)
    seconds = attempts.unwatched_s(tmp_path)
    assert seconds is not None
    assert 0 <= seconds < 60
    (tmp_path / "watched").write_text("1.0 another-boot\n")
    assert attempts.unwatched_s(tmp_path) is None
