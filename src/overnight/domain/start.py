"""Where the next job starts from, and what speaks against it: judged once, for the dispatcher and for ``verify``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from overnight.domain.checkpoint import CheckpointReport, Verdict, checkpoint_name
from overnight.domain.config import ConfigProblem

PUT_BACK = "put it back from a copy into current_model/, or begin a new workspace with overnight init"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base model as it is now."""

    path: str | None  # absolute folder, or a Hub id; None where nobody can tell
    fingerprint: str | None  # None where it was not read: it lies on the Hub, or it is not made yet
    tokenizer: str | None
    trouble: str | None = None  # why it cannot be read
    damage: str | None = None  # which of its files cannot be what it says
    misfit: str | None = None  # how the newest checkpoint's adapter does not fit it
    published: Mapping[str, str] = field(default_factory=dict)  # where it is a version that nothing was trained on yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where the next job starts from."""

    newest: CheckpointReport | None  # the newest verified checkpoint
    passed_over: list[CheckpointReport]  # what has a higher step and cannot be resumed
    base: Base
    passed_over_problems: list[ConfigProblem]  # told, and no hindrance
    hindrances: list[ConfigProblem]  # nothing is started while there are any

    @property
    def is_base_as_trained(self) -> bool | None:
        """Whether the base model is the one that the checkpoint was trained on; None where nobody can tell."""
        expected = _recorded(self.newest, "base_model")
        if expected is None or self.base.fingerprint is None:
            return None
        return expected == self.base.fingerprint


def judge(
    newest: CheckpointReport | None, passed_over: list[CheckpointReport], *, base: Base, ever_committed: int | None
) -> Start:
    """Decide: the newest verified checkpoint, on the base that it belongs to; the base alone only if nothing was lost.

    ``ever_committed`` is a step that is known to have been saved once.
    """
    hindrances = [*_nothing_to_trust(newest, passed_over, ever_committed), *base_problems(newest, base)]
    return Start(
        newest=newest,
        passed_over=passed_over,
        base=base,
        passed_over_problems=[_passed_over(report, newest) for report in passed_over],
        hindrances=hindrances,
    )


def _nothing_to_trust(
    newest: CheckpointReport | None, passed_over: list[CheckpointReport], ever_committed: int | None
) -> Iterable[ConfigProblem]:
    if newest is not None:
        return
    if passed_over:
        told = "; ".join(f"{checkpoint_name(report.step)}: {report.reason}" for report in passed_over[:3])
        yield ConfigProblem(
            key="",
            code="no_checkpoint",
            message="CRITICAL: No checkpoint can be trusted. Nothing is started from the base model",
            found=told,
            expected="one whole checkpoint of this model",
            fix=PUT_BACK,
        )
    elif ever_committed is not None:
        yield ConfigProblem(
            key="",
            code="no_checkpoint",
            message="CRITICAL: The checkpoints are gone. Nothing is started from the base model",
            found=f"none in current_model/, and step {ever_committed} was saved before",
            expected="one whole checkpoint of this model",
            fix=PUT_BACK,
        )


def base_problems(newest: CheckpointReport | None, base: Base) -> list[ConfigProblem]:
    """Return what is wrong with the base model, as one problem at most: one cause, one word."""
    return list(islice(_base_problems(newest, base), 1))


def _base_problems(newest: CheckpointReport | None, base: Base) -> Iterable[ConfigProblem]:
    if base.trouble is not None:
        yield ConfigProblem(
            key="base_model",
            code="base_model",
            message="The base model cannot be read",
            found=base.trouble,
            expected="a folder with a Hugging Face model",
            fix="mount it, or bring it back",
        )
    if _recorded(newest, "base_model") is not None and base.path is not None and not base.path.startswith("/"):
        yield ConfigProblem(
            key="base_model",
            code="base_model",
            message="CRITICAL: The base model's folder is gone",
            found=f"no folder {base.path}; as a name on the Hub it would be another model",
            expected="the folder that the checkpoints were trained on",
            fix="mount it, or bring it back",
        )
    for name, code, what, now in (
        ("tokenizer", "tokenizer", "tokenizer or chat template", base.tokenizer),
        ("base_model", "base_content", "base model", base.fingerprint),
    ):
        expected = _recorded(newest, name) or base.published.get(name)
        if expected is not None and now is not None and expected != now:
            yield ConfigProblem(
                key="base_model",
                code=code,
                message=f"CRITICAL: The {what} is not the one that the checkpoints were trained on",
                found=f"{now} in {base.path}",
                expected=f"{expected} ({checkpoint_name(newest.step) if newest is not None else 'as published'})",
                fix="bring the old files back; for another base model make a new workspace with overnight init",
            )
    for code, what, found in (("damaged", "is damaged", base.damage), ("shapes", "does not fit", base.misfit)):
        if found is not None:
            yield ConfigProblem(
                key="base_model",
                code=code,
                message=f"CRITICAL: The base model {what}{' the adapter' if code == 'shapes' else ''}",
                found=found,
                expected="whole files, with layers of the shapes that the adapter changes",
                fix="bring the right files back; for another base model make a new workspace with overnight init",
            )


def _recorded(newest: CheckpointReport | None, name: str) -> str | None:
    """Return a fingerprint that the checkpoint recorded; one of the Hub is compared by the trainer, which is online."""
    manifest = newest.manifest if newest is not None else None
    value = manifest.fingerprints.get(name) if manifest is not None else None
    return value if value is not None and not value.startswith("hub:") else None


def _passed_over(report: CheckpointReport, newest: CheckpointReport | None) -> ConfigProblem:
    name = checkpoint_name(report.step)
    if newest is None:
        fix = "put a good copy in its place"
    elif report.verdict is Verdict.FOREIGN:
        fix = f"move it out of current_model/; {checkpoint_name(newest.step)} is used instead"
    else:
        fix = f"nothing: {checkpoint_name(newest.step)} is used instead, and this one set aside"
    return ConfigProblem(
        key="",
        code=report.verdict.value,
        message=f"{name} cannot be resumed: {report.reason}",
        found=report.path,
        expected="a checkpoint whose files are what was committed",
        fix=fix,
    )
