"""A model folder as one GGUF file, exactly: every weight keeps its number format and its bits.

    python -m overnight.trainer.to_gguf MODEL_FOLDER OUT_FILE

For models of the Llama architecture; others are refused. The package ``gguf`` writes the file and knows the names;
here is only what a Llama's weights need on the way: the rows of the query and key matrices stand in another order.
The file is read again before it counts as written. No torch is loaded.
"""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from overnight.disk import files, model_files
from overnight.disk.tensor_headers import Tensor, read_header
from overnight.domain.errors import ConfigError, DiskError, ExitCode, FailedError, OvernightError
from overnight.trainer import gguf_vocabulary

ARCHITECTURE = "LlamaForCausalLM"
KINDS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}

Array = np.ndarray[Any, Any]


class Writer(gguf.GGUFWriter):
    """Writes also a list of no texts: a vocabulary of bytes has no merges, and llama.cpp asks for their list."""

    def _pack_val(self, val: Any, vtype: gguf.GGUFValueType, *rest: Any, **named: Any) -> bytes:
        if vtype is gguf.GGUFValueType.ARRAY and len(val) == 0:
            return struct.pack("<IIQ", vtype, gguf.GGUFValueType.STRING, 0)
        return super()._pack_val(val, vtype, *rest, **named)


def convert(folder: Path, target: Path) -> None:
    """Write a model as GGUF, durably. Raises ConfigError where it cannot be exact, DiskError."""
    config = files.read_json(folder / "config.json")
    _require_llama(config)
    places = {name: (folder / part, one) for part in _parts(folder) for name, one in read_header(folder / part).items()}
    kinds = {tensor.kind for _, tensor in places.values() if len(tensor.shape) > 1}
    if len(kinds) != 1 or not kinds <= KINDS.keys():
        raise _unfit(f"weights as {', '.join(sorted(kinds))}", f"one of {', '.join(KINDS)}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, int(config["num_hidden_layers"]))
    writer = Writer(target, "llama")
    _add_settings(writer, folder, config, kinds.pop())
    _add_vocabulary(writer, folder, places)
    written: dict[str, bytes] = {}
    for name, (path, tensor) in sorted(places.items()):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise _unfit(f"a tensor '{name}'", "the tensors of a Llama")
        array = _arranged(name, _array(path, tensor), config)
        _add(writer, known, array, tensor.kind)
        written[known] = _digest(array, tensor.kind)
    factors = _rope_factors(config)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
        written["rope_freqs.weight"] = factors.tobytes()
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        files.sync_file(target)
    except OSError as error:
        raise files.disk_error(error, target) from error
    _require_same(target, written)


def _parts(folder: Path) -> list[str]:
    return model_files.weights_of(folder)


def _require_llama(config: dict[str, Any]) -> None:
    named = config.get("architectures") or [config.get("model_type")]
    if named != [ARCHITECTURE]:
        raise _unfit(f"architecture {', '.join(map(str, named))}", ARCHITECTURE)
    if config.get("quantization_config"):
        raise _unfit("quantized weights", "weights as float32, float16 or bfloat16")


def _array(path: Path, tensor: Tensor) -> Array:
    """Return a tensor as it lies in its file, without reading it yet."""
    if not tensor.shape or tensor.kind not in KINDS:
        raise _unfit(f"a tensor as {tensor.kind} of shape {tensor.shape}", ", ".join(KINDS))
    array: Array = np.memmap(path, dtype=KINDS[tensor.kind], mode="r", offset=tensor.begin, shape=tensor.shape)
    return array


def _arranged(name: str, array: Array, config: dict[str, Any]) -> Array:
    """Put the rows of query and key in the order of GGUF: pairs that turn together stand side by side."""
    heads = int(config["num_attention_heads"])
    if ".k_proj." in name:
        heads = int(config.get("num_key_value_heads") or heads)
    elif ".q_proj." not in name:
        return array
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _wide(array: Array, kind: str) -> Array:
    """Return numbers as float32: exact for each of the formats."""
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def _add(writer: gguf.GGUFWriter, name: str, array: Array, kind: str) -> None:
    if array.ndim == 1:  # GGUF keeps vectors as float32
        writer.add_tensor(name, _wide(array, kind))
    elif kind == "BF16":
        raw = np.ascontiguousarray(array).view(np.uint8)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, array)


def _digest(array: Array, kind: str) -> bytes:
    from blake3 import blake3

    return blake3((_wide(array, kind) if array.ndim == 1 else np.ascontiguousarray(array)).tobytes()).digest()


def _require_same(target: Path, written: dict[str, bytes]) -> None:
    """Read the file again. Raises FailedError where a tensor is not what was written."""
    from blake3 import blake3

    found = {one.name: one.data.tobytes() for one in gguf.GGUFReader(target).tensors}
    wrong = [
        name
        for name in written.keys() | found.keys()
        if name not in found or written.get(name) not in (blake3(found[name]).digest(), found[name])
    ]
    if wrong:
        raise FailedError(
            "The GGUF file read back is not what was written",
            found=", ".join(sorted(wrong)[:3]),
            expected="the same bytes",
            fix="check the disk; export again",
            code="damaged_write",
        )


def _add_settings(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any], kind: str) -> None:
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_name(folder.name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(int(config["vocab_size"]))


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return dict(config.get("rope_parameters") or config.get("rope_scaling") or {})


def _rope_factors(config: dict[str, Any]) -> Array | None:
    """Return by how much each frequency of the positions is slowed down, as Llama 3 does it, or None."""
    rope = _rope(config)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise _unfit(f"positions scaled by '{kind}'", "no scaling, or that of Llama 3")
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    head = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = float(rope["original_max_position_embeddings"])
    factors = []
    for place in range(0, head, 2):
        wave = 2 * math.pi * theta ** (place / head)
        share = min(1.0, max(0.0, (length / wave - low) / (high - low)))
        factors.append(1 / ((1 - share) / factor + share))
    return np.array(factors, dtype=np.float32)


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path, places: dict[str, tuple[Path, Tensor]]) -> None:
    size = places["model.embed_tokens.weight"][1].shape[0]
    vocabulary = gguf_vocabulary.read(folder, size=size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.cut)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_key_value(gguf.Keys.Tokenizer.MERGES, vocabulary.merges, gguf.GGUFValueType.ARRAY)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.begins_with_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def _unfit(found: str, expected: str) -> ConfigError:
    return ConfigError(
        "This model cannot be exported as GGUF here",
        found=found,
        expected=expected,
        fix="export as hf, and convert that folder with llama.cpp's convert_hf_to_gguf.py",
        code="gguf",
    )


def main(arguments: list[str]) -> int:
    """Convert the folder named first into the file named second; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m overnight.trainer.to_gguf MODEL_FOLDER OUT_FILE", file=sys.stderr)
        return int(ExitCode.USAGE)
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except OvernightError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        print(DiskError(f"Cannot read {arguments[0]}", found=str(error)), file=sys.stderr)
        return int(ExitCode.CANNOT_WRITE)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
