"""What fails inside the trainer is seen, told and acted upon, from the command line on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("fault", "kind", "action", "words"),
    [
        ("rows:4:cuda_oom", "cuda_oom", "smaller_batch", "with 2 x 2 instead of 4 x 1"),
        ("row:17:nan", "nan_loss", "last_checkpoint", "without rows 17"),
    ],
)
def test_a_job_that_fails_is_mended_by_itself_and_ends_with_all_its_steps(
    workspace: Any, tmp_path: Path, fault: str, kind: str, action: str, words: str
) -> None:
    workspace.environment["OVERNIGHT_FAULT"] = fault
    workspace.init(**{"train.nan_rows": "skip"})
    rows = [{"prompt": f"{number}+{number}?", "completion": str(2 * number)} for number in range(64)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace.run("add", str(tmp_path / "a.jsonl"))
    workspace.until_idle()
    status = workspace.json("status")
    assert (status["step"], status["queue"]["succeeded"]) == (16, 1)
    (crash,) = workspace.json("crashes")["crashes"]
    assert (crash["kind"], crash["action"], crash["exit_code"]) == (kind, action, 1)
    assert words in crash["consequence"]
    assert {"verdict.json", "report.json", "trainer.log", "heartbeat.json"} <= set(crash["files"])
    shown = workspace.run("crashes", "show", crash["id"]).stdout
    assert crash["remedy"] in shown
    newest, _ = checkpoints.newest_verified(workspace.root / "current_model")
    assert newest is not None
    assert newest.manifest is not None
    assert newest.manifest.data_cursor.get("left_out", []) == ([17] if kind == "nan_loss" else [])
