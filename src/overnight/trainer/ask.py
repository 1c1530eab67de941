"""Questions to a model, with and without what it learnt, in a process of its own.

    python -m overnight.trainer.ask --base FOLDER [--checkpoint FOLDER] --questions FILE --out FILE

The answers are greedy: the same model gives the same answers. Both files are JSON::

    {"schema": 1, "questions": [{"id": "...", "messages": [{"role": "user", "content": "..."}]}]}
    {"schema": 1, "base": "...", "checkpoint": null, "device": "cpu", "seconds": 9.1,
     "answers": [{"id": "...", "answer": "..."}]}

When the time limit is reached, the remaining answers are null and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.domain.errors import DataError, ExitCode, OvernightError, UsageError
from overnight.trainer import environment

Messages = list[dict[str, str]]
Say = Callable[[str], None]

MAX_NEW_TOKENS = 16
BATCH_SIZE = 16
TIME_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, as the conversation that leads to the answer."""

    id: str
    messages: Messages


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file. Raises DataError that says what is wrong with it."""
    try:
        value = files.read_json(path)
        return [
            Question(
                id=str(item["id"]),
                messages=[{"role": str(part["role"]), "content": str(part["content"])} for part in item["messages"]],
            )
            for item in value["questions"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The questions in {path} cannot be read",
            found=f"{type(error).__name__}: {error}",
            expected='{"schema": 1, "questions": [{"id": "...", "messages": [{"role": "user", "content": "..."}]}]}',
            fix="mend the file",
        ) from error


def choose_device(wanted: str) -> str:
    """Return the device to work on: ``auto`` takes CUDA, then MPS, then the CPU."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_model(base: Path, checkpoint: Path | None, *, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer: the base alone, with a checkpoint's adapter, or a checkpoint of the whole model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    is_adapter = checkpoint is not None and (checkpoint / "adapter_config.json").exists()
    weights = base if checkpoint is None or is_adapter else checkpoint
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32, use_safetensors=True)
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(checkpoint))
    return model.to(device).eval(), tokenizer


def answer_all(
    model: Any,
    tokenizer: Any,
    conversations: list[Messages],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """Return the greedy answer to each conversation."""
    return [
        answer
        for batch in _answer_in_batches(
            model, tokenizer, conversations, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        for answer in batch
    ]


def _answer_in_batches(
    model: Any, tokenizer: Any, conversations: list[Messages], *, max_new_tokens: int, batch_size: int
) -> Iterator[list[str]]:
    import torch

    for start in range(0, len(conversations), batch_size):
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations[start : start + batch_size]
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        yield [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def ask(
    base: Path,
    checkpoint: Path | None,
    questions: list[Question],
    *,
    device: str,
    max_new_tokens: int,
    time_limit_s: float,
    say: Say,
) -> dict[str, Any]:
    """Return the answers file's content; answers not reached within the time limit are null."""
    started = time.monotonic()
    say(f"loading {checkpoint or base}")
    device = choose_device(device)
    model, tokenizer = load_model(base, checkpoint, device=device)
    answers: list[str | None] = []
    batches = _answer_in_batches(
        model,
        tokenizer,
        [question.messages for question in questions],
        max_new_tokens=max_new_tokens,
        batch_size=BATCH_SIZE,
    )
    for batch in batches:
        answers.extend(batch)
        say(f"{len(answers)} of {len(questions)} questions answered")
        if time.monotonic() - started > time_limit_s:
            break
    answers.extend([None] * (len(questions) - len(answers)))
    return {
        "schema": 1,
        "base": str(base),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "device": device,
        "seconds": round(time.monotonic() - started, 2),
        "answers": [{"id": question.id, "answer": answer} for question, answer in zip(questions, answers, strict=True)],
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m overnight.trainer.ask", description="Questions to a model.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint with an adapter, or of the whole model")
    parser.add_argument("--questions", type=Path, required=True, help="JSON file with the questions")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the answers")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS)
    parser.add_argument("--time-limit-s", type=float, default=TIME_LIMIT_S)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Ask the questions of one file and write the answers to another; returns the exit code."""
    options = _parse(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are folders here: nothing is looked up
    os.environ.setdefault("TQDM_DISABLE", "1")
    environment.wait_without_spinning()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    try:
        for folder in (options.base, options.checkpoint):
            if folder is not None and not folder.is_dir():
                raise UsageError(
                    f"There is no folder {folder}", expected="a model folder", fix="give the folder of a model"
                )
        result = ask(
            options.base,
            options.checkpoint,
            read_questions(options.questions),
            device=options.device,
            max_new_tokens=options.max_new_tokens,
            time_limit_s=options.time_limit_s,
            say=lambda text: print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True),
        )
        files.write_json_durably(options.out, result)
    except OvernightError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    unanswered = sum(1 for item in result["answers"] if item["answer"] is None)
    if unanswered:
        print(f"time limit of {options.time_limit_s:g} s: {unanswered} questions not answered", file=sys.stderr)
        return int(ExitCode.PROBLEM)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
