"""Short errands that need torch, run in a process of their own: no command of ours loads it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

from overnight.domain.errors import ConfigError, DiskError, ExitCode, FailedError, OvernightError
from overnight.launchers.local import launch_error, python, require_interpreter

LAST_LINES = 12


def convert_base(folder: Path, *, say: Callable[[str], None]) -> None:
    """Provide the weights of builtin:smollm2-135m in a folder; each line that the converter prints is passed on.

    Raises ConfigError where the weights are not installed, OvernightError with its last words where it fails otherwise.
    """
    lines: list[str] = []
    try:
        require_interpreter()
        child = subprocess.Popen(
            [*python("overnight.trainer.convert"), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise launch_error(error, what="The conversion of the base model") from error
    assert child.stdout is not None
    try:
        with child.stdout as output:
            for line in output:
                lines.append(line.rstrip())
                say(line.rstrip())
        code = child.wait()
    except BaseException:
        with contextlib.suppress(OSError):
            child.terminate()
        child.wait()
        raise
    if code != 0:
        kinds: dict[int, type[OvernightError]] = {ExitCode.BAD_CONFIG: ConfigError, ExitCode.CANNOT_WRITE: DiskError}
        progress = max((at for at, line in enumerate(lines) if line.startswith("[")), default=-1)
        last_words = "\n".join(lines[progress + 1 :][-LAST_LINES:])
        raise kinds.get(code, FailedError)(
            last_words or "The base model could not be made",
            found=None if last_words else f"exit code {code} without a word",
            code="base_model",
        )


def write_gguf(folder: Path, target: Path) -> None:
    """Write a model folder as one GGUF file. Raises ConfigError where that cannot be exact."""
    try:
        require_interpreter()
        done = subprocess.run(
            [*python("overnight.trainer.to_gguf"), str(folder), str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise launch_error(error, what="The conversion to GGUF") from error
    if done.returncode != 0:
        kinds: dict[int, type[OvernightError]] = {ExitCode.BAD_CONFIG: ConfigError, ExitCode.CANNOT_WRITE: DiskError}
        words = "\n".join(done.stdout.strip().splitlines()[-LAST_LINES:])
        raise kinds.get(done.returncode, FailedError)(
            words or f"The conversion to GGUF ended with exit code {done.returncode} and without a word", code="gguf"
        )
