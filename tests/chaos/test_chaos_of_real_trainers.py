"""Random faults over every member while real trainers work: the same weights and optimizer. See test_chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.surviving import survives
from chaos.workspace import REAL

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(900)]


def test_random_faults_over_all_members_and_the_same_weights_and_optimizer(tmp_path: Path) -> None:
    survives(tmp_path, REAL, kills=15)
