"""The resume verifier: the newest whole checkpoint by number, and the reason for each newer one passed over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from overnight.control.verifying import verify
from overnight.disk.layout import Layout

Commit = Callable[..., Path]


def test_without_a_checkpoint_the_base_model_is_where_it_starts(layout: Layout) -> None:
    verdict = verify(layout)
    assert verdict.is_ok
    assert verdict.to_json()["resume_from"] is None
    assert "base model" in verdict.in_words()


def test_the_highest_whole_step_is_resumed(layout: Layout, commit: Commit) -> None:
    commit(900)
    commit(3200)
    verdict = verify(layout)
    assert verdict.is_ok
    assert verdict.to_json()["resume_from"] == {"step": 3200, "path": str(layout.checkpoint(3200))}


def test_a_damaged_newer_one_is_named_and_passed_over(layout: Layout, commit: Commit) -> None:
    commit(900)
    (commit(3200) / "weights").write_bytes(b"x" * 100)
    (layout.model / "checkpoint-abc").mkdir()
    verdict = verify(layout)
    answer = verdict.to_json()
    assert not verdict.is_ok
    assert answer["resume_from"]["step"] == 900
    assert [one["state"] for one in answer["checkpoints"]] == ["corrupt", "verified", "foreign"]
    assert answer["problems"][0]["code"] == "corrupt"
    assert "weights" in verdict.in_words()


def test_with_none_whole_nothing_starts_from_the_base_by_itself(layout: Layout, commit: Commit) -> None:
    (commit(5) / "weights").unlink()
    verdict = verify(layout)
    assert verdict.resume_from is None
    assert "no_checkpoint" in [problem.code for problem in verdict.problems]


def test_settings_that_do_not_fit_are_a_problem(layout: Layout, commit: Commit) -> None:
    commit(5, seed=7)
    verdict = verify(layout)
    assert not verdict.is_ok
    assert "CRITICAL: Cannot change 'seed' while checkpoints exist" in verdict.in_words()


def test_a_base_model_with_a_damaged_header_is_told_before_anything_is_loaded(layout: Layout) -> None:
    path = layout.base / "tiny" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes((2**63).to_bytes(8, "little") + data[8:])
    verdict = verify(layout)
    assert not verdict.is_ok
    assert "The base model is damaged" in verdict.in_words()
    assert "its header claims 9223372036854775808 bytes" in verdict.in_words()
