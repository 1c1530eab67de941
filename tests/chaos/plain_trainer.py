"""The plain trainer that a careful user restarts by hand: TRL's SFTTrainer with PEFT, resumed from its last checkpoint.

    python tests/chaos/plain_trainer.py BASE ROWS OUT EPOCHS SAVE_EVERY

The same base model, rows, batch and adapter as the workspace of the chaos run. ``OUT/steps.txt`` gets a line a step.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def main(base: str, rows: str, out: Path, epochs: int, save_every: int) -> None:
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer

    out.mkdir(parents=True, exist_ok=True)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            with open(out / "steps.txt", "a") as file:
                file.write(f"{os.getpid()} {state.global_step} {time.monotonic()}\n")

    config = SFTConfig(
        str(out),
        per_device_train_batch_size=4,
        num_train_epochs=epochs,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=3,
        logging_steps=10,
        report_to="none",
        max_length=128,
        learning_rate=0.002,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=42,
        average_tokens_across_devices=False,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = SFTTrainer(
        base,
        args=config,
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Clock()],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    (out / "finished").touch()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
