"""What a merge costs: seconds, memory, and how far the result is from base + adapter.

    python bench/merge.py [--base builtin:smollm2-135m] [--steps 4] [--threads 2]

Trains a few steps on sums as the loop has it done, then merges that checkpoint in a process of its own, and prints one
JSON line from the merge's report. The peak is that of the merging process alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from overnight.disk import attempts, builtin, checkpoints, fingerprints
from overnight.disk.layout import Layout
from overnight.domain import config
from overnight.domain.attempt import Spec
from overnight.domain.merge import MergeSpec


def run(layout: Layout, spec: Spec | MergeSpec) -> Path:
    folder = layout.attempt(spec.attempt)
    folder.mkdir(parents=True)
    attempts.write_spec(folder, spec)
    with open(folder / "trainer.log", "wb") as log:
        code = subprocess.call([sys.executable, "-m", "overnight.trainer", str(folder)], stdout=log, stderr=log)
    if code:
        raise SystemExit((folder / "trainer.log").read_text()[-3000:])
    return folder


def train(layout: Layout, base: str, options: argparse.Namespace) -> None:
    rows = layout.datasets / "sums" / "rows.jsonl"
    rows.parent.mkdir()
    with open(rows, "w") as file:
        for number in range(4 * options.steps):
            talk = [("user", f"{number}+{7 * number}?"), ("assistant", str(8 * number))]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in talk]}) + "\n")
    settings = config.parse({
        "model_name": "bench", "base_model": options.base, "max_length": 64,
        "train": {"batch_size": 4, "learning_rate": 0.002, "threads": options.threads, "device": "cpu"},
    })  # fmt: skip
    run(layout, Spec(
        kind="fit", attempt="000001-01", job=1, workspace=str(layout.root), dataset=str(rows),
        dataset_id=hashlib.sha256(rows.read_bytes()).hexdigest(), settings=settings.to_json(), base_model=base,
        base_fingerprint=None, start_step=0, checkpoint=None, mode="fresh", seed=1, threads=options.threads,
        created_at=time.time(),
    ))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=builtin.SMOLLM2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="leave the workspace here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        layout = Layout((options.keep or Path(scratch)).absolute())
        for folder in layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        base = builtin.resolve(layout, options.base)
        if options.base == builtin.TINY:
            builtin.make_tiny(Path(base))
        elif options.base == builtin.SMOLLM2:
            subprocess.run([sys.executable, "-m", "overnight.trainer.convert", base], check=True, stdout=sys.stderr)
        train(layout, base, options)
        newest = checkpoints.newest_verified(layout.model)[0]
        assert newest is not None
        folder = run(layout, MergeSpec(
            attempt="merge-01", workspace=str(layout.root), base_model=base,
            base_fingerprint=fingerprints.of_folder(Path(base)), checkpoint=newest.path, method="lora",
            target=str(layout.versions / ".staging"), step=newest.step, probes=["12+84?"], threads=options.threads,
            created_at=time.time(),
        ))  # fmt: skip
        report = attempts.read_merge_report(folder)
        assert report is not None
        print(json.dumps({
            "base": options.base, "threads": options.threads, "seconds": report.seconds,
            "peak_mb": round(report.peak_memory_bytes / 1e6), "version_mb": round(report.bytes / 1e6),
            "dtype": report.dtype, "tensors": report.tensors, "changed": report.tensors_changed,
            "off": report.max_abs_difference, "off_unrounded": report.max_abs_difference_unrounded,
            "learnt": report.max_abs_difference_from_base,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
