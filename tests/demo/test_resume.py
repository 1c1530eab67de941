"""The proof of the resume, read from what two attempts really leave on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.demo import resume
from overnight.disk import attempts
from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.domain.errors import FailedError

FIRST, SECOND = "000001-01", "000001-02"


def leave_attempt(root: Path, attempt: str, *, mode: str, start: int | None, steps: range, shift: float = 0.0) -> None:
    layout = Layout(root)
    folder = layout.attempt(attempt)
    folder.mkdir(parents=True)
    spec = Spec(
        kind="fit", attempt=attempt, job=1, workspace=str(root), dataset="rows.jsonl", dataset_id="0" * 64,
        settings={}, base_model="base", base_fingerprint=None, start_step=0,
        checkpoint=None if start is None else str(layout.checkpoint(start)), mode=mode, seed=1, threads=1,
        created_at=0.0,
    )  # fmt: skip
    attempts.write_spec(folder, spec)
    attempts.append_metrics(folder, *({"step": step, "loss": 1 / step + shift} for step in steps))


def read(root: Path) -> resume.Resume:
    return resume.read(root, killed=FIRST, successor=SECOND)


def test_a_resume_tells_from_where_and_what_was_trained_twice(tmp_path: Path) -> None:
    leave_attempt(tmp_path, FIRST, mode="fresh", start=None, steps=range(1, 46))
    leave_attempt(tmp_path, SECOND, mode="resume", start=40, steps=range(41, 97))
    proof = read(tmp_path)
    assert (proof.killed_at, proof.resumed_from) == (45, 40)
    assert proof.trained_twice == [41, 42, 43, 44, 45]
    assert proof.different == []


def test_a_loss_that_differs_in_the_last_digit_is_seen(tmp_path: Path) -> None:
    leave_attempt(tmp_path, FIRST, mode="fresh", start=None, steps=range(1, 46))
    leave_attempt(tmp_path, SECOND, mode="resume", start=40, steps=range(41, 97), shift=1e-15)
    assert read(tmp_path).different == [41, 42, 43, 44, 45]


def test_a_start_from_the_base_is_no_resume(tmp_path: Path) -> None:
    leave_attempt(tmp_path, FIRST, mode="fresh", start=None, steps=range(1, 46))
    leave_attempt(tmp_path, SECOND, mode="fresh", start=None, steps=range(1, 97))
    with pytest.raises(FailedError, match="did not resume"):
        read(tmp_path)


def test_a_resume_that_skips_steps_is_none(tmp_path: Path) -> None:
    leave_attempt(tmp_path, FIRST, mode="fresh", start=None, steps=range(1, 46))
    leave_attempt(tmp_path, SECOND, mode="resume", start=40, steps=range(43, 97))
    with pytest.raises(FailedError, match="did not go on where its checkpoint stood"):
        read(tmp_path)
