"""What a committed checkpoint costs above Hugging Face's plain save, in turns.

    python bench/checkpoint.py [--rounds 20]

Both sides let Hugging Face's trainer write weights, optimizer, schedule and random states. Ours then cleans the folder,
hashes and syncs each file, writes the manifest, renames and syncs the directory: after that a power cut costs nothing.
``above_s`` is the median over rounds of (committed save - plain save); ``verify_s`` is reading it all back, as is done
before a resume.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import work

from overnight.disk import builtin, checkpoints
from overnight.disk.layout import Layout
from overnight.domain.attempt import Spec
from overnight.domain.config import Settings
from overnight.trainer import convert, saving

STEPS = 2


def trainer_of(base: Path, rows: Path, out: Path, *, r: int) -> Any:
    """Return a plain trainer that has made some steps, so that the optimizer has something to save."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        str(out), per_device_train_batch_size=2, max_steps=STEPS, save_strategy="no", report_to="none", use_cpu=True,
        bf16=False, max_length=64, disable_tqdm=True, gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    trainer = SFTTrainer(
        str(base),
        args=config,
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        peft_config=LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def lineage_of(workspace: Path, base: Path) -> saving.Lineage:
    settings = Settings(model_name="bench", base_model=str(base))
    spec = Spec(
        kind="fit", attempt="000001-01", job=1, workspace=str(workspace), dataset="rows.jsonl", dataset_id="0" * 64,
        settings=settings.to_json(), base_model=str(base), base_fingerprint=None, start_step=0, checkpoint=None,
        mode="fresh", seed=1, threads=1, created_at=0.0,
    )  # fmt: skip
    return saving.Lineage(spec=spec, settings=settings, fingerprints={}, environment={})


def measure(name: str, base: Path, rows: Path, scratch: Path, *, rounds: int, r: int) -> dict[str, object]:
    """Save in turns, plain and committed, and return one line of figures."""
    out, workspace = scratch / f"{name}-out", scratch / f"{name}-workspace"
    layout = Layout(workspace)
    for folder in (layout.model, layout.trash):
        folder.mkdir(parents=True)
    trainer = trainer_of(base, rows, out, r=r)
    lineage = lineage_of(workspace, base)
    place = saving.Place(job_step=STEPS, job_total=STEPS, epoch=0, step_in_epoch=STEPS, rows=2 * STEPS)
    staging, target = out / f"checkpoint-{STEPS}", layout.checkpoint(STEPS)
    plain: list[float] = []
    committed: list[float] = []
    verified: list[float] = []
    size = files = 0
    for number in range(rounds + 1):
        sides = [plain, committed] if number % 2 == 0 else [committed, plain]
        for side in sides:
            os.sync()  # what the other side left to be written is not ours to pay for
            started = time.perf_counter()
            trainer._save_checkpoint(trainer.model, trial=None)
            if side is committed:
                saving.commit(staging, lineage, place)
            side.append(time.perf_counter() - started)
            if side is plain:
                shutil.rmtree(staging)
        started = time.perf_counter()
        report = checkpoints.verify(target)
        verified.append(time.perf_counter() - started)
        size, files = report.bytes, len(report.manifest.files) if report.manifest else 0
        shutil.rmtree(target)
    above = [ours - theirs for ours, theirs in zip(committed[1:], plain[1:], strict=True)]  # the first warms up
    return {
        "bench": "checkpoint",
        "model": name,
        "bytes": size,
        "files": files,
        "rounds": rounds,
        "plain_s": round(statistics.median(plain[1:]), 4),
        "committed_s": round(statistics.median(committed[1:]), 4),
        "above_s": round(statistics.median(above), 4),
        "above_min_s": round(min(above), 4),
        "above_max_s": round(max(above), 4),
        "verify_s": round(statistics.median(verified[1:]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a committed checkpoint costs above a plain save.")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"})
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as name:
        scratch = Path(name)
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("work.py")), str(scratch / "work"), "--rows", "64"],
            check=True, capture_output=True,
        )  # fmt: skip
        rows = scratch / "work" / "rows.jsonl"
        models = [("small", scratch / "work" / "base", work.LORA_R)]
        convert.provide(scratch / "smollm2", say=lambda text: print(f"  {text}", file=sys.stderr))
        models.append((builtin.SMOLLM2.removeprefix("builtin:"), scratch / "smollm2", 16))
        for model, base, r in models:
            print(json.dumps(measure(model, base, rows, scratch, rounds=options.rounds, r=r)), flush=True)


if __name__ == "__main__":
    main()
