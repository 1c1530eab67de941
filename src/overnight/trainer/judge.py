"""The judge: after a job every held-out set is evaluated, for the model after it and for the model before it.

It works on a model that is trained and saved, so it costs no step: killed here, the next attempt judges (mode "judge")
and trains nothing. What is judged already stands in ``judgement.jsonl`` of the attempt's folder and is not done twice.
No set can end the job: one that takes too long or fails is skipped with the reason, and after an attempt that hung here
the rest is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file

from overnight.disk import attempts, checkpoints, evidence, files, versions
from overnight.disk.layout import Layout
from overnight.disk.manifest import MANIFEST
from overnight.domain.attempt import Phase, Spec, attempt_id
from overnight.domain.checkpoint import Verdict
from overnight.domain.encoding import IGNORED, Encoder
from overnight.domain.errors import DiskError
from overnight.domain.judgement import Score
from overnight.domain.pace import learn
from overnight.trainer import heldout
from overnight.trainer.alarm import TimeIsUp
from overnight.trainer.evaluation import Measure
from overnight.trainer.heldout import Task
from overnight.trainer.pairing import Pairing, exchanged
from overnight.trainer.run import Run

AFTER, BEFORE = "after", "before"
DEATHS = 2
"""So many attempts may die in the judging of one job: what is left is skipped then."""


class Left(Exception):
    """Asked to leave in the middle of the judging."""


class Judge:
    """Judges one job."""

    def __init__(self, run: Run, trainer: Any, measure: Measure, encoder: Encoder, base: Path) -> None:
        self.run = run
        self.spec: Spec = run.spec
        self.trainer = trainer
        self.measure = measure
        self.encoder = encoder
        self.base = base
        self.known: dict[tuple[str, str], dict[str, object]] = {}
        self.trouble: str | None = None
        self.model = ""  # which checkpoint is judged
        self.tasks = [task for task in heldout.tasks(run.spec) if task.is_judged]
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def __call__(self) -> list[dict[str, object]] | None:
        """Judge every set; return what was found, None where there is nothing to judge. Raises Left."""
        if not self.tasks:
            return None
        pulse = self.run.pulse
        self.model = files.blake3_of(Layout(Path(self.spec.workspace)).checkpoint(pulse.step) / MANIFEST)
        self.known, self.trouble = earlier_findings(self.spec, self.run.folder, self.model)
        before = pulse.phase
        pulse.enter(Phase.EVALUATING)
        self._keep({"begun": True})
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        model, was_training = self.trainer.model, self.trainer.model.training
        try:
            with torch.random.fork_rng(devices=devices), contextlib.ExitStack() as stack:
                model.eval()
                found = [self._find(task, AFTER) for task in self.tasks]
                if any(not self._is_known(task, BEFORE) for task in self.tasks):
                    try:
                        self._bring_back(stack)
                    except Exception as error:  # the border of a half: what was found of the model after it stands
                        self.trouble = str(error) or type(error).__name__
                return found + [self._find(task, BEFORE) for task in self.tasks]
        finally:
            model.train(was_training)
            pulse.enter(before)

    def _is_known(self, task: Task, when: str) -> bool:
        return (task.id, when) in self.known

    def _find(self, task: Task, when: str) -> dict[str, object]:
        """Return the score of one set, as a line of judgement.jsonl."""
        if self._is_known(task, when):
            return self.known[task.id, when]
        line: dict[str, object] = {"set": task.id, "when": when}
        try:
            if not self._rows_of(task):
                return {**line, "is_empty": True}  # too few rows, or nothing supervised in those that are held out
            if self.trouble is not None:
                raise TimeIsUp(self.trouble)
            line["score"] = dataclasses.asdict(self._score(task, when))
        except Left:
            raise
        except Exception as error:  # the border of one set: whatever it is, the job is trained
            line["skipped"] = str(error) or type(error).__name__
            self.run.pulse.note(f"{task.file} was not judged ({when} the job): {line['skipped']}")
        self._keep(line)
        return line

    def _keep(self, line: dict[str, object]) -> None:
        with contextlib.suppress(OSError, DiskError):  # a full disk: it is judged again where it has to be
            attempts.append_judged(self.run.folder, {"model": self.model, **line})

    def _score(self, task: Task, when: str) -> Score:
        pulse, rows = self.run.pulse, self._rows_of(task)
        pulse.flush()
        tally = Tally()
        began = time.monotonic()
        longest_s = 0.0
        pairs = exchanged(rows, limit=self.run.settings.max_length) if task.is_own and when == AFTER else []
        batch_size = self.run.settings.train.batch_size
        alarm = self.measure.alarm()
        with alarm.armed():
            for start in range(0, len(rows), batch_size):
                longest_s = max(longest_s, self._batch(rows[start : start + batch_size], tally, alarm.next_item))
            pairing = Tally()
            for start in range(0, len(pairs), batch_size):
                part = [pair.row for pair in pairs[start : start + batch_size]]
                longest_s = max(longest_s, self._batch(part, pairing, alarm.next_item))
        took_s = time.monotonic() - began
        self.measure.pace = learn(self.measure.pace, took_s=longest_s, wall_s=took_s, moves=-(-len(rows) // batch_size))
        if not math.isfinite(tally.loss):
            raise ValueError("the loss on it is no number")
        found = Pairing.of(
            [alone - tally.row_losses[pair.answer] for pair, alone in zip(pairs, pairing.row_losses, strict=True)]
        )
        return Score(
            loss=tally.loss, accuracy=tally.right / tally.tokens, rows=len(rows), tokens=tally.tokens,
            pairs=found.pairs, pairing=found.gain, pairing_error=found.error,
        )  # fmt: skip

    def _rows_of(self, task: Task) -> list[dict[str, Any]]:
        if task.id not in self._rows:
            self._rows[task.id] = heldout.rows_of(
                self.spec, task, self.encoder, max_length=self.run.settings.max_length, on_block=self.run.pulse.beat
            )
        return self._rows[task.id]

    def _batch(self, rows: list[dict[str, Any]], tally: Tally, next_item: Callable[[], None]) -> float:
        """Add a batch to a tally; return how long it took."""
        if self.run.wishes.reason() is not None:
            raise Left
        began = time.monotonic()
        next_item()
        self.run.faults.reach("judge")
        blank = self.trainer.processing_class.pad_token_id or 0
        inputs, labels = padded(rows, blank=blank, device=self.trainer.model.device)
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            logits = self.trainer.model(**inputs, use_cache=False).logits
        tally.add(logits, labels)
        self.run.pulse.beat()
        return time.monotonic() - began

    def _bring_back(self, stack: contextlib.ExitStack) -> None:
        """Give the model in memory the weights that it had before the job; on disk nothing changes."""
        model, parent = self.trainer.model, parent_of(self.spec)
        if self.run.settings.method == "full":
            folder = self.base if parent is None else parent
            for path in sorted(folder.glob("*.safetensors")):
                model.load_state_dict(load_file(path), strict=False)
                self.run.pulse.beat()
        elif parent is None:
            stack.enter_context(model.disable_adapter())
        else:
            peft.set_peft_model_state_dict(model, load_file(parent / "adapter_model.safetensors"))


def padded(rows: list[dict[str, Any]], *, blank: int, device: Any) -> tuple[dict[str, Any], Any]:
    """Return rows as one batch, one below the other whatever way the training packs them, and their labels."""
    width = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, filler: int) -> Any:
        return torch.tensor([[*row[name], *[filler] * (width - len(row[name]))] for row in rows], device=device)

    lengths = torch.tensor([len(row["input_ids"]) for row in rows], device=device)
    mask = (torch.arange(width, device=device)[None, :] < lengths[:, None]).long()
    return {"input_ids": filled("input_ids", blank), "attention_mask": mask}, filled("labels", IGNORED)


class Tally:
    """Losses and right tokens of the rows seen so far."""

    def __init__(self) -> None:
        self.row_losses: list[float] = []
        self.total_loss, self.tokens, self.right = 0.0, 0, 0

    @property
    def loss(self) -> float:
        """Return the mean loss of a supervised token."""
        return self.total_loss / self.tokens if self.tokens else math.nan

    def add(self, logits: Any, labels: Any) -> None:
        """Take in a batch, row by row: the numbers of a big vocabulary never stand in float32 for all rows at once."""
        for row in range(labels.shape[0]):
            learnt = labels[row, 1:] != IGNORED
            said, meant = logits[row, :-1][learnt].float(), labels[row, 1:][learnt]
            loss = float(torch.nn.functional.cross_entropy(said, meant, reduction="sum"))
            count = int(meant.numel())
            self.total_loss += loss
            self.tokens += count
            self.right += int((said.argmax(dim=-1) == meant).sum())
            self.row_losses.append(loss / count if count else math.nan)


def parent_of(spec: Spec) -> Path | None:
    """Return the checkpoint before the job, None for the base model. Raises LookupError where it is gone."""
    if spec.start_step == 0 or _is_version(spec):
        return None
    report = checkpoints.verify(Layout(Path(spec.workspace)).checkpoint(spec.start_step))
    if report.verdict is not Verdict.VERIFIED:
        raise LookupError(f"the checkpoint before the job cannot be used: {report.reason}")
    return Path(report.path)


def _is_version(spec: Spec) -> bool:
    """Return whether the job was the first on a version: before it there was nothing beside the base model."""
    layout, base = Layout(Path(spec.workspace)), Path(spec.base_model)
    with contextlib.suppress(OSError, ValueError):
        if base.parent == layout.versions and not layout.checkpoint(spec.start_step).exists():
            return versions.read(base).step == spec.start_step
    return False


def earlier_findings(
    spec: Spec, folder: Path, model: str
) -> tuple[dict[tuple[str, str], dict[str, object]], str | None]:
    """Return what earlier attempts have found of this very model, and why the rest is skipped where one hung in it."""
    known: dict[tuple[str, str], dict[str, object]] = {}
    trouble: str | None = None
    deaths = 0
    number = int(spec.attempt.rpartition("-")[2]) if spec.mode == "judge" else 1
    for earlier in range(1, number):
        before = folder.with_name(attempt_id(spec.job, earlier))
        lines = [line for line in attempts.read_judged(before) if line.get("model") == model]
        known |= {(str(line["set"]), str(line["when"])): line for line in lines if "set" in line and "when" in line}
        if lines and attempts.read_report(before) is None:
            deaths += 1
            if evidence.read_hang(before) is not None or deaths == DEATHS:
                trouble = (
                    f"attempt {earlier} hung in the judging" if deaths < DEATHS else f"{deaths} attempts died of it"
                )
    return known, trouble
