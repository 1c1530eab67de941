"""Power cuts at random moments: what was announced as saved is there, and the end is that of the undisturbed run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos import power

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(400)]

SEED = int(os.environ.get("OVERNIGHT_CHAOS_SEED", "11"))


def test_after_ten_power_cuts_what_was_announced_is_there_and_the_bytes_are_equal(tmp_path: Path) -> None:
    why = power.why_not(tmp_path)
    if why:
        pytest.skip(f"no power can be cut here: {why}")
    print(f"seed {SEED}: OVERNIGHT_CHAOS_SEED={SEED}, or make power-cuts N=10 SEED={SEED}")
    told: list[str] = []
    assert power.cut_often(tmp_path / "run", seed=SEED, cuts=10, tell=told.append) == [], told
