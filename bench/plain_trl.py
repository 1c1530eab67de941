"""The plain trainer: TRL's SFTTrainer with PEFT, the way a careful user runs it alone. One side of bench/training.py
and of bench/recovery.py.

    python bench/plain_trl.py WORK OUT [--save-every N] [--resume] [--device cpu] [--threads 1]

WORK comes from bench/work.py. OUT gets Hugging Face's checkpoints, and steps.txt with the time of each step's end and
the process that made it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from work import BATCH_SIZE, LEARNING_RATE, LORA_ALPHA, LORA_DROPOUT, LORA_R, MAX_LENGTH


def build_trainer(
    place: Path, out: Path, *, save_every: int, device: str, threads: int, save_limit: int | None, callbacks: list[Any]
) -> Any:
    """Return the trainer; torch is loaded here."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    on_gpu = device == "cuda"
    config = SFTConfig(
        str(out),
        per_device_train_batch_size=BATCH_SIZE,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=save_every or 10**9,
        save_total_limit=save_limit,
        logging_steps=20,
        report_to="none",
        max_length=MAX_LENGTH,
        learning_rate=LEARNING_RATE,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=7,
        dataloader_num_workers=0,
        packing=False,
        average_tokens_across_devices=False,
        model_init_kwargs={"dtype": "bfloat16" if on_gpu else "float32"},
    )
    return SFTTrainer(
        str(place / "base"),
        args=config,
        train_dataset=load_dataset("json", data_files=str(place / "rows.jsonl"), split="train"),
        peft_config=LoraConfig(
            r=LORA_R,
            lora_alpha=LORA_ALPHA,
            lora_dropout=LORA_DROPOUT,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=callbacks,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--save-every", type=int, default=0, help="0: only at the end")
    parser.add_argument("--resume", action="store_true", help="from the newest checkpoint in OUT, where there is one")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    from transformers import TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    options.out.mkdir(parents=True, exist_ok=True)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            with open(options.out / "steps.txt", "a") as file:  # readable at once, by whoever watches
                file.write(f"{time.time()} {os.getpid()}\n")

    trainer = build_trainer(
        options.work, options.out, save_every=options.save_every, device=options.device, threads=options.threads,
        save_limit=3, callbacks=[Clock()],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(options.out)) if options.resume else None)


if __name__ == "__main__":
    main()
