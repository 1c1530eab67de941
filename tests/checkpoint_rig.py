"""Checkpoints made without a trainer."""

from __future__ import annotations

from pathlib import Path

from overnight.disk import checkpoints
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Manifest


def commit_steps(layout: Layout, *steps: int) -> None:
    """Commit small checkpoints, in that order."""
    for step in steps:
        staging = layout.root / "staging"
        staging.mkdir()
        (staging / "weights").write_bytes(f"weights of {step}".encode() * 50)
        (staging / "optimizer").write_bytes(f"optimizer of {step}".encode() * 90)
        manifest = Manifest(
            step=step, job=1, job_step=step, job_total=10_000, start_step=0, attempt="000001-01", dataset_id="d",
            created_at=1.0, model_name="m", method="lora", locked={}, data_cursor={}, fingerprints={}, environment={},
            files={},
        )  # fmt: skip
        checkpoints.commit(staging, layout.checkpoint(step), manifest)


def corrupt(folder: Path) -> None:
    """Flip one bit in a file of a checkpoint."""
    path = next(path for path in sorted(folder.iterdir()) if path.name != "manifest.json")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def names(layout: Layout) -> set[str]:
    """Return what stands in the model's folder under an ordinary name."""
    return {path.name for path in layout.model.iterdir() if not path.name.startswith(".")}
