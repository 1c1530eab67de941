"""The work that both sides of the training bench do: a very small Llama with a byte-level tokenizer, and rows of sums.

python bench/work.py FOLDER [--rows 1600]     makes FOLDER/base and FOLDER/rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

SEED = 0
BATCH_SIZE = 8
MAX_LENGTH = 128
LEARNING_RATE = 1e-3
LORA_R, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05


def make_base(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    for word in ("<|pad|>", "<|im_start|>", "<|im_end|>"):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    wrapped.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=vocabulary["<|pad|>"],
            eos_token_id=vocabulary["<|im_end|>"],
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)


def make_rows(path: Path, count: int) -> None:
    source = random.Random(SEED)
    with open(path, "w") as file:
        for _ in range(count):
            a, b = source.randint(0, 999), source.randint(0, 999)
            messages = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]
            file.write(json.dumps({"messages": messages}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1600)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make_base(options.folder / "base")
    make_rows(options.folder / "rows.jsonl", options.rows)


if __name__ == "__main__":
    main()
