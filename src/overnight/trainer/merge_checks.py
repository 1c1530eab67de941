"""What must be true before a merge touches anything: the right base, its own whole adapter, room. Loads no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from overnight.disk import checkpoints, files, fingerprints, model_files
from overnight.disk.tensor_headers import Tensor, read_header
from overnight.domain.checkpoint import Manifest, Verdict
from overnight.domain.errors import ConfigError, DiskError, UsageError
from overnight.domain.merge import METHODS, TOLERANCES, MergeSpec, needed_bytes
from overnight.domain.shapes import misfit
from overnight.launchers.memory import room_of
from overnight.trainer.failures import CorruptError, MismatchError, NoMemoryError
from overnight.trainer.pulse import Pulse

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
HUB = "hub:"
FLOAT32_BYTES = 4
OVERHEAD_BYTES = 600 << 20
"""What the libraries themselves hold."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the checks found; the merge stands on it."""

    manifest: Manifest
    tensors: dict[str, Tensor]  # of the weights that are written
    needed_bytes: int


def check(spec: MergeSpec, pulse: Pulse) -> Ground:
    """Refuse what cannot become a version. Raises MismatchError, CorruptError, DiskError, ConfigError, UsageError."""
    base, checkpoint, target = Path(spec.base_model), Path(spec.checkpoint), Path(spec.target)
    if spec.method not in METHODS:
        raise ConfigError(f"There is no method '{spec.method}'", expected=" | ".join(METHODS), code="method")
    if os.path.lexists(target):
        raise UsageError(
            f"{target} is in the way", found="it is there", expected="no such folder", code="target_in_way"
        )
    require_base(spec, pulse)
    manifest = _require_checkpoint(spec, checkpoint)
    pulse.beat()
    source = checkpoint if spec.method == "full" else base
    try:
        tensors = model_files.headers_of(source)
        if spec.method != "full":
            _require_adapter(checkpoint, tensors, manifest)
    except ValueError as error:
        raise CorruptError(
            "The weights cannot be read", found=str(error), expected="whole safetensors files",
            fix="see overnight verify; bring the base model back from its origin", code="damaged_weights",
        ) from error  # fmt: skip
    needed = _require_space(spec, source, checkpoint, target.parent)
    _require_memory(tensors)
    return Ground(manifest, tensors, needed)


def require_base(spec: MergeSpec, pulse: Pulse) -> None:
    """Read every byte of the base model; raise MismatchError where it is not the one that the spec names."""
    base = Path(spec.base_model)
    content = fingerprints.of_folder(base, on_file=pulse.beat)
    if spec.base_fingerprint.startswith(HUB):  # a snapshot of the Hub is named by its commit
        content = f"{spec.base_fingerprint.rpartition('@')[0]}@{base.name}"
    if content != spec.base_fingerprint:
        raise MismatchError(
            "The base model is not the one that the adapter was trained on",
            found=content,
            expected=spec.base_fingerprint,
            fix=f"bring the base model in {base} back as it was",
            code="wrong_base",
        )


def _require_checkpoint(spec: MergeSpec, checkpoint: Path) -> Manifest:
    report = checkpoints.verify(checkpoint)
    if report.verdict is not Verdict.VERIFIED or report.manifest is None:
        raise CorruptError(
            "The checkpoint to publish is damaged",
            found=f"{checkpoint.name}: {report.reason}",
            expected="every file as it was committed",
            fix="see overnight verify; the newest checkpoint that is whole can be published",
            code="damaged_adapter",
        )
    manifest = report.manifest
    theirs = manifest.fingerprints.get("base_model")
    if theirs != spec.base_fingerprint:
        raise MismatchError(
            "The adapter belongs to another base model",
            found=str(theirs),
            expected=spec.base_fingerprint,
            fix="publish a checkpoint that was trained on this base",
            code="adapter_of_another_base",
        )
    if manifest.method != spec.method:
        raise MismatchError(
            "The checkpoint was trained by another method", found=manifest.method, expected=spec.method,
            fix="set method back", code="another_method",
        )  # fmt: skip
    return manifest


def _require_adapter(checkpoint: Path, base: dict[str, Tensor], manifest: Manifest) -> None:
    for name in ADAPTER:
        if not (checkpoint / name).is_file():
            raise CorruptError(
                "The checkpoint holds no adapter", found=f"{name} is missing", expected=" and ".join(ADAPTER),
                fix="see overnight verify", code="damaged_adapter",
            )  # fmt: skip
    shapes = {name: tensor.shape for name, tensor in read_header(checkpoint / ADAPTER[1]).items()}
    rank = manifest.locked.get("lora.r")
    unfit = misfit(
        shapes, {name: tensor.shape for name, tensor in base.items()}, rank=rank if isinstance(rank, int) else None
    )
    if unfit is not None:
        raise MismatchError(
            "The adapter does not fit the base model", found=unfit, expected="matrices of the base's layers",
            fix="see overnight verify", code="adapter_of_another_shape",
        )  # fmt: skip


def _require_space(spec: MergeSpec, source: Path, checkpoint: Path, parent: Path) -> int:
    weights = sum((source / name).stat().st_size for name in model_files.weights_of(source))
    adapter = 0 if spec.method == "full" else sum((checkpoint / name).stat().st_size for name in ADAPTER)
    needed, free = needed_bytes(weights=weights, adapter=adapter), files.free_bytes(parent)
    if needed > free:
        raise DiskError(
            f"There is no room for a version in {parent}",
            found=f"{free / 1e6:.0f} MB free",
            expected=f"{needed / 1e6:.0f} MB",
            fix="free space, for example with overnight cleanup, or delete versions that nobody uses",
            code="no_space",
        )
    return needed


def _require_memory(tensors: dict[str, Tensor]) -> None:
    """Refuse a merge that memory cannot hold: the model in float32, its largest tensor twice wider, the libraries."""
    sizes = [FLOAT32_BYTES * _count(tensor) for tensor in tensors.values() if tensor.kind in TOLERANCES]
    needed = sum(sizes) + 3 * max(sizes, default=0) + OVERHEAD_BYTES
    room = room_of(os.getpid())
    if room is not None and needed > room.available_bytes:
        raise NoMemoryError(
            "There is not enough memory for the merge",
            found=f"{room.available_bytes / 1e6:.0f} MB available in {room.where}",
            expected=f"about {needed / 1e6:.0f} MB: the model once in float32",
            fix="end other programs, or use a machine with more memory",
            code="no_memory",
        )


def _count(tensor: Tensor) -> int:
    count = 1
    for number in tensor.shape:
        count *= number
    return count
