"""The resume verifier: which checkpoint the next job starts from, and why not a newer one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.control import settings
from overnight.disk import checkpoints, trust
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import CheckpointReport, Verdict
from overnight.domain.config import ConfigProblem
from overnight.domain.locked import refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the verifier found."""

    resume_from: CheckpointReport | None
    found: list[CheckpointReport]  # newest first
    base_model: str | None
    base_folder: str | None  # None where it is no folder of this machine
    problems: list[ConfigProblem]

    @property
    def is_ok(self) -> bool:
        """Whether the next job starts from the newest checkpoint, with settings that fit it."""
        return not any(problem.level == "error" for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return the answer of ``overnight verify --json``."""
        newest = self.resume_from
        return {
            "ok": self.is_ok,
            "resume_from": {"step": newest.step, "path": newest.path} if newest is not None else None,
            "checkpoints": [
                {
                    "step": report.step if report.step >= 0 else None,
                    "path": report.path,
                    "state": report.verdict.value,
                    "reason": report.reason,
                }
                for report in self.found
            ],
            "base_model": {"path": self.base_folder or self.base_model, "fingerprint": None, "matches": None},
            "problems": [
                {
                    "code": problem.code,
                    "message": problem.message,
                    "found": problem.found,
                    "expected": problem.expected,
                    "fix": problem.fix,
                }
                for problem in self.problems
            ],
        }

    def in_words(self) -> str:
        """Return the same for people."""
        lines = [
            f"{Path(report.path).name}: {report.verdict.value} ({report.reason})"
            for report in self.found
            if self.resume_from is None or report.step >= self.resume_from.step
        ]
        if self.resume_from is not None:
            lines.append(f"The next job starts from {self.resume_from.path} (step {self.resume_from.step}).")
        elif not any(problem.code == "no_checkpoint" for problem in self.problems):
            lines.append("There is no checkpoint: the first job starts from the base model.")
        return "\n".join([*lines, *(str(refused([problem])) for problem in self.problems)])


def verify(layout: Layout) -> Verified:
    """Judge every checkpoint by its content, newest first, and the settings against them."""
    seen = checkpoints.scan(layout.model, verify_content=False)
    found = [trust.verify(layout, Path(report.path)) if report.manifest is not None else report for report in seen]
    good = next((report for report in found if report.verdict is Verdict.VERIFIED), None)
    checked = settings.check(layout)
    problems = [*_passed_over(found, good), *checked.problems]
    model = checked.settings.base_model if checked.settings is not None else None
    return Verified(
        resume_from=good,
        found=found,
        base_model=model,
        base_folder=_folder(layout, model),
        problems=problems,
    )


def _folder(layout: Layout, base_model: str | None) -> str | None:
    from overnight.disk import builtin  # numpy and tokenizers: only where a base model is looked at
    from overnight.domain.errors import ConfigError

    try:
        place = builtin.resolve(layout, base_model) if base_model is not None else None
    except ConfigError:
        return None
    return place if place is not None and Path(place).is_absolute() else None


def _passed_over(found: list[CheckpointReport], good: CheckpointReport | None) -> list[ConfigProblem]:
    bad = [
        report
        for report in found
        if report.verdict in (Verdict.CORRUPT, Verdict.INCOMPLETE) and (good is None or report.step > good.step)
    ]
    problems = [
        ConfigProblem(
            key="",
            code=report.verdict.value,
            message=f"{Path(report.path).name} cannot be resumed: {report.reason}",
            found=report.path,
            expected="a checkpoint whose files are what was committed",
            fix=f"nothing: {Path(good.path).name} is used instead"
            if good is not None
            else "put a good copy in its place",
        )
        for report in bad
    ]
    if bad and good is None:
        problems.append(
            ConfigProblem(
                key="",
                code="no_checkpoint",
                message="No checkpoint is whole: training will not start by itself from the base model",
                found=f"{len(bad)} damaged",
                expected="one whole checkpoint",
                fix="put a good copy of one into current_model/",
            )
        )
    return problems
