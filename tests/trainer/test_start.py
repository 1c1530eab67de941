"""A checkpoint that other versions wrote is loaded with a warning, or refused with the versions named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig, sums  # noqa: E402

from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.trainer import environment  # noqa: E402

OLD = {"torch": "1.0.0", "tokenizers": "0.1.0", "overnight": "0.0.1"}


def written_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Rig, Path]:
    """Leave a checkpoint in the middle of a job that says other versions wrote it."""
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 16), "a")
    really = environment.package_versions
    with monkeypatch.context() as patch:
        patch.setattr(environment, "package_versions", lambda: {**really(), **OLD})
        rig.run(rig.spec(1, rows), fault="step:3:raise")
    newest = rig.newest()
    assert newest is not None
    assert newest.manifest is not None
    assert newest.manifest.environment["torch"] == "1.0.0"
    return rig, rows


def forget_the_format(patch: pytest.MonkeyPatch) -> None:
    """Let torch read no optimizer's memory any more, as after a change of its format."""
    really = torch.optim.AdamW.load_state_dict

    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        if state["state"]:
            raise KeyError("param_groups of another format")
        really(self, state)

    patch.setattr(torch.optim.AdamW, "load_state_dict", load_state_dict)


def test_a_checkpoint_of_other_versions_is_loaded_and_said_to_be_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, rows = written_by_others(tmp_path, monkeypatch)

    resumed = rig.run(rig.spec(1, rows))

    assert resumed.outcome is Outcome.COMPLETED
    (told,) = [note for note in resumed.notes if "was written by other versions" in note]
    assert f"torch 1.0.0 -> {torch.__version__.partition('+')[0]}" in told
    assert "tokenizers 0.1.0 -> " in told
    assert "overnight 0.0.1 -> " in told
    assert any("bit equality is not promised" in note for note in resumed.notes)
    continued = rig.run(rig.spec(2, rig.rows(sums(2, 8), "b")))
    assert continued.outcome is Outcome.COMPLETED
    assert continued.notes == [], "its checkpoint is of the versions that are installed"


@pytest.mark.parametrize("mode", ["resume", "continue"])
def test_a_checkpoint_that_other_versions_wrote_and_these_cannot_read_is_refused_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    rig, rows = written_by_others(tmp_path, monkeypatch)

    spec = rig.spec(1, rows) if mode == "resume" else rig.spec(2, rig.rows(sums(2, 8), "b"))
    assert spec.mode == mode
    with monkeypatch.context() as patch:
        forget_the_format(patch)
        report = rig.run(spec)

    assert (report.outcome, report.kind, report.charged) == (
        Outcome.CRASHED, FailureKind.CHECKPOINT_MISMATCH, False,
    )  # fmt: skip
    assert "cannot be read by the versions that are installed now" in report.message
    assert "torch 1.0.0 -> " in report.message
    assert "nothing of it is changed or lost" in report.message
    newest = rig.newest()
    assert newest is not None
    assert newest.step == 2


def test_what_breaks_under_the_same_versions_is_not_blamed_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 16), "a")
    rig.run(rig.spec(1, rows), fault="step:3:raise")

    with monkeypatch.context() as patch:
        forget_the_format(patch)
        report = rig.run(rig.spec(1, rows))
    assert "versions" not in report.message
