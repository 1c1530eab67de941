"""A version is made: base and adapter become one model, written aside, read again and compared; or nothing is left.

In this order: the checks (``merge_checks``), the logits of base and of base + adapter, the weights layer by layer into
the target folder, the files beside them byte for byte, the adapter itself, then everything is read again from the disk:
hashes, and logits of the folder loaded afresh. The base's files give the layout: what the adapter does not change keeps
its bytes. At no time are more than one model in float32 and one tensor in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overnight.disk import files, model_files
from overnight.disk.tensor_headers import Tensor, read_header
from overnight.domain.attempt import Outcome, Phase
from overnight.domain.merge import FIXED_PROBES, MergeReport, MergeSpec, tolerance_of
from overnight.trainer import environment, fit, merge_checks, merge_sources, probing
from overnight.trainer import model as models
from overnight.trainer.failures import WrongMergeError
from overnight.trainer.faults import Faults
from overnight.trainer.merge_words import peak_memory_bytes
from overnight.trainer.pulse import Pulse
from overnight.trainer.wishes import Wishes

ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a merge is given."""

    spec: MergeSpec
    pulse: Pulse
    wishes: Wishes
    faults: Faults

    def part(self) -> None:
        """Say that one more part is done; leave here where that is wished."""
        self.pulse.part += 1
        self.pulse.beat()
        self.wishes.obey_at_once()

    @property
    def base(self) -> Path:
        """The folder of the base model."""
        return Path(self.spec.base_model)

    @property
    def checkpoint(self) -> Path:
        """The folder of what was trained."""
        return Path(self.spec.checkpoint)

    @property
    def target(self) -> Path:
        """The folder that is made."""
        return Path(self.spec.target)


@dataclass
class Findings:
    """What is learnt on the way."""

    probes: probing.Tokens
    of_base: list[Any] = field(default_factory=list)  # logits
    trained: list[Any] = field(default_factory=list)  # logits of base + adapter, or of the trained model
    written: dict[str, str] = field(default_factory=dict)  # file -> BLAKE3 as it was written
    changed: int = 0
    formats: set[str] = field(default_factory=set)
    unrounded: float | None = None

    @property
    def largest(self) -> float:
        """The largest logit of the trained model."""
        return max(float(one.abs().max()) for one in self.trained)


def merge(task: Task) -> MergeReport:
    """Make the target folder a whole model; return the last word. On any failure nothing of it is left."""
    began = time.monotonic()
    fit.be_quiet()
    task.pulse.enter(Phase.MERGING)
    ground = merge_checks.check(task.spec, task.pulse)
    device = models.plain_device(task.spec.device)
    models.be_exact(device, threads=task.spec.threads)
    try:
        report = _make(task, ground, device)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # whoever started us removes what we cannot
            files.remove_tree(task.target, inside=task.target.parent)
        raise
    return _complete(report, task, ground, seconds=time.monotonic() - began)


def _make(task: Task, ground: merge_checks.Ground, device: models.Device) -> MergeReport:
    probes = probing.encode(merge_sources.tokenizer_of(task.base), [*FIXED_PROBES, *task.spec.probes])
    task.pulse.parts = len(ground.tensors) + 3 * len(probes)
    task.pulse.enter(Phase.MERGING)  # told at once: whoever waits knows from here on how much there is
    found = Findings(probes)
    files.make_directory(task.target)
    try:
        if task.spec.method == "full":
            _publish(task, found, device)
        else:
            _join(task, found, device, ground.tensors)
        _copy(task, found)
    except OSError as error:
        raise files.disk_error(error, task.target) from error
    gc.collect()
    task.faults.reach("merged")
    contents = _read_again(task, found)
    return _compare(task, found, device, contents)


def _join(task: Task, found: Findings, device: models.Device, tensors: dict[str, Tensor]) -> None:
    """Write base + adapter as one model."""
    is_quantized = task.spec.method == "qlora"
    joined = merge_sources.join(task.base, task.checkpoint, device, tensors, quantized=is_quantized)
    task.part()
    found.trained = probing.logits(joined.model, found.probes, what="The trained model", on_probe=task.part)
    with joined.model.disable_adapter():
        found.of_base = probing.logits(joined.model, found.probes, what="The base model", on_probe=task.part)

    def replacement(name: str, tensor: Tensor) -> memoryview | None:
        task.faults.reach("merge")
        return joined.replacement(name, tensor)

    for name in model_files.weights_of(task.base):
        done = model_files.rewrite(task.base / name, task.target / name, replacement, on_tensor=task.part)
        found.written[name] = done.blake3
        found.changed += done.changed
    found.formats = joined.formats
    now = probing.logits(joined.model, found.probes, what="The merged model", on_probe=task.pulse.beat)
    found.unrounded = probing.difference(now, found.trained)  # the layers in memory are merged by now
    _require_near(
        found.unrounded,
        tolerance_of(["F32"], largest_logit=found.largest),
        "before it is rounded to the base's number format",
    )


def _publish(task: Task, found: Findings, device: models.Device) -> None:
    """Write a fully trained model as it is."""
    found.of_base = _logits_of(task.base, task, found.probes, device, what="The base model")
    found.trained = _logits_of(task.checkpoint, task, found.probes, device, what="The trained model")
    base = _stored(task.base)

    def note(name: str, tensor: Tensor) -> None:
        task.faults.reach("merge")
        found.formats.add(tensor.kind)

    for name in model_files.weights_of(task.checkpoint):
        done = model_files.rewrite(task.checkpoint / name, task.target / name, note, on_tensor=task.part)
        found.written[name] = done.blake3
    trained = _stored(task.checkpoint)
    for name, (path, key) in trained.items():
        found.changed += name not in base or not _is_equal(base[name], (path, key))
        task.pulse.beat()


def _stored(folder: Path) -> dict[str, tuple[Path, str]]:
    return {key: (folder / name, key) for name in model_files.weights_of(folder) for key in read_header(folder / name)}


def _is_equal(one: tuple[Path, str], other: tuple[Path, str]) -> bool:
    import torch
    from safetensors import safe_open

    values = []
    for path, key in (one, other):
        with safe_open(path, framework="pt") as file:
            values.append(file.get_tensor(key).float())
    return bool(torch.equal(*values)) if values[0].shape == values[1].shape else False


def _logits_of(folder: Path, task: Task, probes: probing.Tokens, device: models.Device, *, what: str) -> list[Any]:
    model = merge_sources.load_model(folder, device)
    task.pulse.beat()
    found = probing.logits(model, probes, what=what, on_probe=task.part)
    del model
    gc.collect()
    return found


def _copy(task: Task, found: Findings) -> None:
    """Copy what stands beside the weights, byte for byte, and keep the adapter itself."""
    is_full = task.spec.method == "full"
    sources = {name: task.base / name for name in model_files.companions_of(task.base)}
    if is_full:
        settings = [task.checkpoint / name for name in ("config.json", "generation_config.json")]
        sources |= {path.name: path for path in settings if path.is_file()}
    if model_files.WEIGHTS not in found.written:
        sources[model_files.INDEX] = (task.checkpoint if is_full else task.base) / model_files.INDEX
    if not is_full:
        files.make_directory(task.target / ADAPTER_FOLDER)
        sources |= {f"{ADAPTER_FOLDER}/{name}": task.checkpoint / name for name in merge_checks.ADAPTER}
    for name, source in sorted(sources.items()):
        files.copy_durably(source, task.target / name)
        found.written[name] = files.blake3_of(source)
        task.pulse.beat()
    files.sync_directory(task.target)
    files.sync_directory(task.target.parent)


def _read_again(task: Task, found: Findings) -> dict[str, str]:
    """Read every file back. Raises WrongMergeError where one is not what was written."""
    contents = model_files.contents_of(task.target, on_file=task.pulse.beat)
    wrong = sorted(
        name for name in contents.keys() | found.written.keys() if contents.get(name) != found.written.get(name)
    )
    if wrong:
        raise WrongMergeError(
            "What was read back is not what was written",
            found=f"another content of {', '.join(wrong[:3])}",
            expected="the bytes that were written",
            fix="check the disk; consolidate again",
            code="damaged_write",
        )
    return contents


def _compare(task: Task, found: Findings, device: models.Device, contents: dict[str, str]) -> MergeReport:
    """Load the folder afresh and hold it against what was trained."""
    if probing.encode(merge_sources.tokenizer_of(task.target), [*FIXED_PROBES, *task.spec.probes]) != found.probes:
        raise WrongMergeError("The written tokenizer cuts text in another way", code="wrong_tokenizer")
    now = _logits_of(task.target, task, found.probes, device, what="The written model")
    tolerance = (
        task.spec.tolerance
        if task.spec.tolerance is not None
        else tolerance_of(found.formats or {"F32"}, largest_logit=found.largest)
    )
    off, learnt = probing.difference(now, found.trained), probing.difference(now, found.of_base)
    _require_near(off, tolerance, "loaded afresh from the disk")
    if found.changed == 0 or learnt == 0.0:
        raise WrongMergeError(
            "The merge changes nothing",
            found=f"{found.changed} tensors differ from the base, logits by {learnt:g}",
            expected="a model that is not the base",
            fix="train before you consolidate; a change too small for the base's number format is lost in it",
            code="nothing_changed",
        )
    merge_checks.require_base(task.spec, task.pulse)  # nobody exchanged it meanwhile
    return MergeReport(
        attempt=task.spec.attempt,
        outcome=Outcome.COMPLETED,
        message=f"{found.changed} tensors changed; logits differ from the trained model's by at most {off:.3g}",
        max_abs_difference=off,
        max_abs_difference_unrounded=found.unrounded,
        max_abs_difference_from_base=learnt,
        tolerance=tolerance,
        tensors_changed=found.changed,
        tensors=len(model_files.headers_of(task.target)),
        dtype=" ".join(sorted({tensor.kind for tensor in model_files.headers_of(task.target).values()})),
        bytes=sum((task.target / name).stat().st_size for name in contents),
        files=contents,
        probes=len(found.probes),
    )


def _require_near(off: float, tolerance: float, when: str) -> None:
    if off > tolerance:
        raise WrongMergeError(
            "The merged model is not the trained one",
            found=f"logits that differ by {off:.3g}, {when}",
            expected=f"at most {tolerance:g}",
            fix="consolidate again; where it comes again, keep the adapter and tell us",
            code="merge_differs",
        )


def _complete(report: MergeReport, task: Task, ground: merge_checks.Ground, *, seconds: float) -> MergeReport:
    return dataclasses.replace(
        report,
        versions=environment.package_versions(),
        needed_bytes=ground.needed_bytes,
        seconds=round(seconds, 3),
        peak_memory_bytes=peak_memory_bytes(),
        notes=list(task.pulse.notes),
        ended_at=time.time(),
    )
