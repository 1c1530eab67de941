"""The settings: typed, with defaults, one line of meaning each; and what is locked while checkpoints exist.

The text of each field is its documentation: the JSON Schema and docs/SETTINGS.md are made from it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from overnight.domain.errors import ConfigError

LOCKED_KEYS = (
    "model_name",
    "base_model",
    "max_length",
    "method",
    "seed",
    "lora.r",
    "lora.alpha",
    "lora.dropout",
    "lora.target_modules",
)
"""Settings that may not change while checkpoints exist."""

NUMBER_LIMIT = 1_000_000_000
"""No count, length or time in the settings is above this."""


class _Section(BaseModel):
    """Strict: no coercion, no unknown keys, no NaN; values never change after reading."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )


Count = Annotated[int, Field(ge=1, le=NUMBER_LIMIT)]
CountOrZero = Annotated[int, Field(ge=0, le=NUMBER_LIMIT)]
Seconds = Annotated[float, Field(gt=0, le=NUMBER_LIMIT)]


class TrainSettings(_Section):
    """How a job is trained."""

    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(8, description="rows in one forward pass")
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=65536)] = Field(
        1, description="forward passes in one optimizer step"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1.0)] = Field(2e-4, description="peak learning rate of each job")
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="shape of the learning rate over one job"
    )
    warmup_steps: CountOrZero = Field(0, description="steps in which the learning rate rises, at the start of each job")
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="times that each row of a job is seen")
    replay: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.0, description="share of a job's rows that are rows of earlier jobs, trained once more against forgetting"
    )
    packing: bool = Field(False, description="put several short rows into one sequence of max_length")
    supervise: Literal["assistant", "completion", "all"] = Field(
        "assistant",
        description="tokens that are learnt: what the assistant says, only the last answer, or everything",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to train; auto takes what is there"
    )
    nan_rows: Literal["stop", "skip"] = Field(
        "stop",
        description="rows whose loss alone is no number: stop (the file is set aside, they are named), or go on without"
        " them (skip)",
    )
    threads: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="CPU threads of the trainer; null takes what the machine offers at the job's start"
    )


class LoraSettings(_Section):
    """The adapter's shape (methods lora and qlora)."""

    r: Annotated[int, Field(ge=1, le=4096)] = Field(16, description="rank")
    alpha: Annotated[int, Field(ge=1, le=65536)] = Field(32, description="scale: the update is multiplied by alpha / r")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="share of adapter inputs dropped in training"
    )
    target_modules: str | list[str] = Field("all-linear", description="all-linear, or the names of the layers")


class CheckpointSettings(_Section):
    """How often state is made safe, and how much of it stays."""

    every_steps: Count = Field(100, description="steps between two checkpoints")
    keep: Annotated[int, Field(ge=1, le=100_000)] = Field(
        5, description="checkpoints that stay; the last verified always does"
    )


class EvaluationSettings(_Section):
    """Evaluation on rows that are never trained."""

    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="share of each file's rows held out of training"
    )
    every_steps: Count = Field(500, description="steps between two evaluations; one more at the end of a job")
    max_examples: Count = Field(200, description="held-out rows used in one evaluation")
    gate: Literal["off", "warn", "block"] = Field(
        "warn", description="harm to the model: let it pass (off), tell it (warn), or keep the job aside (block)"
    )
    gate_margin: Annotated[float, Field(ge=0, le=10)] = Field(
        0.1, description="share of what earlier jobs taught that a job may undo before the gate calls it harm"
    )


class QueueSettings(_Section):
    """How files become jobs."""

    poll_interval_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        5.0, description="seconds between two looks into the inbox"
    )
    settle_s: Annotated[float, Field(ge=0, le=3600)] = Field(2.0, description="seconds that a file must stay unchanged")
    bad_rows: Literal["reject", "skip"] = Field(
        "reject", description="a file with bad rows: refuse it, or train the others"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(3, description="tries of a job before it is set aside")


class WatchSettings(_Section):
    """Time limits of the guards; they are ceilings, the trainer's own history lowers them."""

    daemon_dead_s: Seconds = Field(30.0, description="a dead daemon is noticed within")
    back_up_s: Seconds = Field(60.0, description="a dead daemon is back within")
    no_progress_s: Seconds = Field(600.0, description="a training step may take at most")
    stuck_s: Seconds = Field(900.0, description="anything without progress is ended after")
    eval_stuck_s: Seconds = Field(
        1800.0, description="an evaluation without progress is ended after; also its time limit"
    )
    save_stuck_s: Seconds = Field(900.0, description="a save may take at most")
    load_stuck_s: Seconds = Field(900.0, description="loading may take at most")
    grace_s: Seconds = Field(30.0, description="from the wish to stop until the trainer must be gone")
    max_restarts: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="quick restarts of a guard inside the window"
    )
    restart_window_s: Seconds = Field(300.0, description="the window in which quick restarts are counted")
    max_memory_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = Field(
        None,
        description="a trainer that grows beyond so much memory (10^9 bytes) saves and a fresh process goes on; null:"
        " only where memory gets short",
    )


class DiskSettings(_Section):
    """What must stay free."""

    min_free_gb: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        2.0, description="free space, in 10^9 bytes, below which no attempt is started"
    )
    trash_days: Annotated[float, Field(ge=0, le=36_500)] = Field(
        14.0,
        description="days that a damaged checkpoint stays in .overnight/trash, counted while the daemon runs; fewer"
        " where space is short",
    )


class BackupSettings(_Section):
    """Copies in a second place."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None, description="absolute path of a folder on another disk; null makes no copies"
    )
    versions: bool = Field(True, description="copy each version")
    every_checkpoints: CountOrZero = Field(10, description="copy each n-th checkpoint; 0 copies none")
    daily: Annotated[int, Field(ge=0, le=100_000)] = Field(
        7, description="days of which the newest copied checkpoint stays"
    )
    weekly: Annotated[int, Field(ge=0, le=100_000)] = Field(
        4, description="weeks of which the newest copied checkpoint stays"
    )


class ServerSettings(_Section):
    """The web page."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8765, description="port; 0 takes any free one")


Notable = Literal["failed", "hung", "crashed", "disk", "done"]


def _all_notable() -> list[Notable]:
    return ["failed", "hung", "crashed", "disk", "done"]


class NotifySettings(_Section):
    """Messages to the outside."""

    urls: list[str] = Field(default_factory=list, description="where to send, as notification URLs")
    on: list[Notable] = Field(default_factory=_all_notable, description="what is worth a message")


class LauncherSettings(_Section):
    """How a trainer is started."""

    kind: Literal["local", "torchrun", "ray"] = Field("local", description="how a trainer is started")
    workers: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="processes of one trainer")
    address: str | None = Field(None, description="of a Ray cluster")
    spare: bool = Field(True, description="keep a process with the libraries loaded: a restart then takes a second")


class Settings(_Section):
    """All settings of a workspace (config.json)."""

    schema_: str | None = Field(None, alias="$schema", description="the JSON Schema beside the file, for editors")
    schema_number: Literal[1] = Field(1, alias="schema", description="format of this file")
    model_name: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="what the model is called")
    base_model: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a local folder, a Hub id, builtin:tiny or builtin:smollm2-135m"
    )
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = Field(1024, description="tokens per example")
    method: Literal["lora", "qlora", "full"] = Field(
        "lora", description="adapter, adapter on a 4-bit base, or all weights"
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(42, description="of every random choice")
    train: TrainSettings = Field(default_factory=TrainSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    disk: DiskSettings = Field(default_factory=DiskSettings)
    backup: BackupSettings = Field(default_factory=BackupSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)
    launcher: LauncherSettings = Field(default_factory=LauncherSettings)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as config.json holds them."""
        return self.model_dump(by_alias=True, exclude_none=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem:
    """One thing wrong with the settings."""

    key: str
    code: str  # "missing" | "unknown" | "type" | "value" | "contradiction" | "locked" | "syntax"
    message: str
    found: str | None = None
    expected: str | None = None
    fix: str | None = None
    level: str = "error"  # "error" | "warning"


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``{"lora.r": 16, ...}`` from nested settings."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def known_keys() -> list[str]:
    """Return every key of the settings in dotted form, sections included."""
    keys: list[str] = []
    for name, field in Settings.model_fields.items():
        shown = field.alias or name
        keys.append(shown)
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            keys.extend(f"{shown}.{inner}" for inner in section.model_fields)
    return keys


def check(values: object) -> tuple[Settings | None, list[ConfigProblem]]:
    """Judge raw settings: all problems at once, and the settings where there is no error."""
    if not isinstance(values, dict):
        problem = ConfigProblem(
            key="",
            code="type",
            message="The settings are not a JSON object",
            found=type(values).__name__,
            expected="an object with model_name and base_model",
            fix="overnight init makes a valid file",
        )
        return None, [problem]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        return None, [_problem(item) for item in error.errors(include_url=False)]
    return settings, _contradictions(settings)


def parse(values: object) -> Settings:
    """Return valid settings. Raises ConfigError that names every problem."""
    settings, problems = check(values)
    errors = [problem for problem in problems if problem.level == "error"]
    if settings is None or errors:
        raise refusal(errors)
    return settings


def refusal(problems: list[ConfigProblem]) -> ConfigError:
    """Return one error that tells all problems."""
    first = problems[0]
    if len(problems) == 1:
        return ConfigError(first.message, found=first.found, expected=first.expected, fix=first.fix, code=first.code)
    lines = [f"{len(problems)} settings are refused"]
    for problem in problems:
        detail = f" (found {problem.found}; expected {problem.expected})" if problem.expected else ""
        lines.append(f"  {problem.key}: {problem.message}{detail}" + (f" {problem.fix}" if problem.fix else ""))
    return ConfigError("\n".join(lines), fix="edit config.json, or use overnight config set KEY VALUE", code="several")


def _problem(item: Any) -> ConfigProblem:
    """Translate one of the validator's findings into the user's words."""
    key = ".".join(str(part) for part in item["loc"])
    kind = str(item["type"])
    found = repr(item.get("input"))
    if kind == "missing":
        return ConfigProblem(
            key=key,
            code="missing",
            message=f"'{key}' is missing",
            expected="a value",
            fix=f"overnight config set {key} VALUE",
        )
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
        return ConfigProblem(
            key=key,
            code="unknown",
            message=f"'{key}' is no setting",
            found=_short(found),
            expected=f"'{near[0]}'" if near else "one of the keys of overnight config schema",
            fix=f"rename it to '{near[0]}'" if near else "remove it",
        )
    code = "type" if kind.endswith("_type") or kind.endswith("_parsing") or kind == "int_from_float" else "value"
    return ConfigProblem(
        key=key,
        code=code,
        message=f"'{key}' is refused: {item['msg']}",
        found=_short(found),
        expected=str(item["msg"]),
        fix=f"overnight config set {key} VALUE",
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _contradictions(settings: Settings) -> list[ConfigProblem]:
    """Return settings that are fine alone and not together."""
    problems: list[ConfigProblem] = []
    watch = settings.watch
    for key, low, high, level in (
        ("watch.stuck_s", watch.no_progress_s, watch.stuck_s, "error"),
        ("watch.eval_stuck_s", watch.no_progress_s, watch.eval_stuck_s, "warning"),
        ("watch.back_up_s", watch.daemon_dead_s, watch.back_up_s, "error"),
    ):
        if high < low:
            problems.append(
                ConfigProblem(
                    key=key,
                    code="contradiction",
                    message=f"'{key}' is below the limit that it stands on",
                    found=f"{high:g} s",
                    expected=f"at least {low:g} s",
                    fix=f"overnight config set {key} {low:g}",
                    level=level,
                )
            )
    if settings.backup.path is not None and not settings.backup.path.startswith("/"):
        problems.append(
            ConfigProblem(
                key="backup.path",
                code="value",
                message="'backup.path' is no absolute path",
                found=settings.backup.path,
                expected="a path that begins with /",
                fix="overnight config set backup.path /another/disk/folder",
            )
        )
    if settings.launcher.kind != "ray" and settings.launcher.address is not None:
        problems.append(
            ConfigProblem(
                key="launcher.address",
                code="contradiction",
                message="'launcher.address' is for the ray launcher only",
                found=settings.launcher.address,
                expected="null",
                fix="overnight config set launcher.address null",
            )
        )
    return problems
