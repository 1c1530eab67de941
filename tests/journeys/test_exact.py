"""The promise: the same files give the same bytes; other seeds give others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

STEPS = 576  # three long files


def test_three_files_of_64_rows_in_batches_of_4_give_48_steps_and_the_same_bytes_twice(
    make_workspace: Callable[[str], Any], three_files: Callable[[Any], None]
) -> None:
    digests = []
    for number in range(2):
        workspace = make_workspace(str(number)).init()
        three_files(workspace)
        workspace.until_idle()
        status = workspace.json("status")
        assert (status["step"], status["total"], workspace.newest_step()) == (48, 48, 48)
        digests.append(workspace.digest())
    assert digests[0] == digests[1]


def test_the_undisturbed_run_learns_and_another_seed_gives_other_bytes(
    workspace: Any, undisturbed: Any, three_files: Callable[[Any], None]
) -> None:
    first, expected = undisturbed
    first.check_end(expected)
    losses = [
        json.loads(line)["loss"]
        for folder in sorted((first.root / ".overnight" / "attempts").iterdir())
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        if "loss" in json.loads(line)
    ]
    assert sum(losses[-16:]) / 16 < 0.8 * sum(losses[:16]) / 16
    workspace.init_long(seed="43")
    three_files(workspace)
    workspace.until_idle()
    assert workspace.newest_step() == STEPS
    assert workspace.digest() != expected
