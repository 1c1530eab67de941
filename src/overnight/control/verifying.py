"""The resume verifier: which checkpoint the next job starts from, and why not a newer one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight import starting
from overnight.control import settings
from overnight.disk import checkpoints, trust
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import CheckpointReport
from overnight.domain.config import ConfigProblem
from overnight.domain.locked import refused
from overnight.domain.start import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the verifier found."""

    start: Start  # as the dispatcher finds it
    found: list[CheckpointReport]  # newest first
    base_model: str | None  # as config.json names it
    problems: list[ConfigProblem]

    @property
    def resume_from(self) -> CheckpointReport | None:
        """The checkpoint that the next job starts from."""
        return self.start.newest

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
            "base_model": {
                "path": self.start.base.path or self.base_model,
                "fingerprint": self.start.base.fingerprint,
                "matches": self.start.is_base_as_trained,
            },
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


def verify(layout: Layout, connection: sqlite3.Connection | None = None) -> Verified:
    """Judge the start of the next job as the dispatcher does, every older checkpoint too, and the settings.

    ``connection`` tells whether a checkpoint was ever saved; without it .config_lock.json does.
    """
    checked = settings.check(layout)
    model = checked.settings.base_model if checked.settings is not None else None
    committed = starting.ever_committed(layout, connection)
    start = starting.find(layout, base_model=model, ever_committed=committed)
    known = {report.path: report for report in [*start.passed_over, *([start.newest] if start.newest else [])]}
    found = [
        known.get(seen.path) or (trust.verify(layout, Path(seen.path)) if seen.manifest is not None else seen)
        for seen in checkpoints.scan(layout.model, verify_content=False)
    ]
    about_base = any(problem.key == "base_model" for problem in checked.problems)
    hindrances = [problem for problem in start.hindrances if not (about_base and problem.key == "base_model")]
    return Verified(
        start=start,
        found=found,
        base_model=model,
        problems=[*start.passed_over_problems, *hindrances, *checked.problems],
    )
