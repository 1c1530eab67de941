"""The rules of a merge: what it needs, and how far logits may be off."""

from __future__ import annotations

import dataclasses

import pytest

from overnight.domain.attempt import Heartbeat, Phase
from overnight.domain.merge import FLOAT32_TOLERANCE, needed_bytes, tolerance_of
from overnight.domain.picture import doing


def test_the_coarsest_number_format_gives_the_limit() -> None:
    def limit(*formats: str, largest: float = 1.0) -> float:
        return tolerance_of(formats, largest_logit=largest)

    assert limit("F32") == FLOAT32_TOLERANCE == 1e-5
    assert limit("F32", "BF16") == limit("BF16") > limit("F16") > FLOAT32_TOLERANCE
    assert limit("F32", largest=2.0) == 1e-5
    assert limit("F32", largest=26.2) == pytest.approx(1e-4)
    with pytest.raises(KeyError):
        limit("I8")


def test_a_version_needs_its_weights_its_adapter_and_something_more() -> None:
    assert needed_bytes(weights=10**9, adapter=10**7) > 1.01 * 10**9


def test_a_merge_is_told_with_its_parts() -> None:
    beat = Heartbeat(
        attempt="merge-01", pid=1, phase=Phase.MERGING, progress=3, step=2, total=None, loss=None, eval_loss=None,
        learning_rate=None, epoch=None, tokens_per_second=None, eta_s=None, checkpoint=2, phase_since=1.0, beat_at=2.0,
        written_at=3.0, boot_id="b", part=12,
    )  # fmt: skip
    assert doing(beat) == "merging"
    assert doing(dataclasses.replace(beat, parts=30)) == "merging, part 12 of 30"
    assert doing(dataclasses.replace(beat, phase=Phase.SAVING)) == ""
