"""The product as a user meets it: its command line, its status file, its folders. Nothing else is used to drive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overnight.disk import files
from overnight.domain.errors import ExitCode, FailedError

COMMAND_LIMIT_S = 120.0
LAST_LINES = 15


class CommandError(FailedError):
    """A command of the product ended with another exit code than 0; it keeps that code."""

    def __init__(self, words: list[str], code: int, told: str) -> None:
        lines = [line for line in told.strip().splitlines() if line.strip()][-LAST_LINES:]
        super().__init__(
            f"overnight {' '.join(words)} ended with exit code {code}",
            found="\n            ".join(lines) or "no word",
            expected="exit code 0",
            fix="what it says above; the workspace stays for a look",
        )
        self.exit_code = ExitCode(code) if code in set(ExitCode) else ExitCode.PROBLEM


class Product:
    """One workspace and the commands typed at it."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._is_up = False

    def up(self) -> None:
        """Start the daemon. Raises CommandError."""
        self._is_up = True  # from here on there may be something to end
        self.run("up", "--detach", "--no-web")

    def until_idle(self, *, limit_s: float) -> None:
        """Train until nothing is left to do; nothing runs afterwards. Raises CommandError where a job failed."""
        self._is_up = True
        try:
            self.run("up", "--until-idle", "--no-web", limit_s=limit_s)
        finally:
            self.down()

    def run(self, *words: str, limit_s: float = COMMAND_LIMIT_S, in_own_session: bool = False) -> str:
        """Run a command on the workspace and return what it prints. Raises CommandError."""
        command = [sys.executable, "-m", "overnight", "-C", str(self.workspace), *words]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=limit_s,
                start_new_session=in_own_session,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(list(words), 124, f"no end after {limit_s:.0f} s") from error
        if done.returncode != 0:
            raise CommandError(list(words), done.returncode, done.stderr + done.stdout)
        return done.stdout

    def ask(self, *words: str) -> dict[str, Any]:
        """Return a reading command's JSON answer. Raises CommandError."""
        answer = json.loads(self.run(*words, "--json"))
        if not isinstance(answer, dict):
            raise CommandError([*words, "--json"], 0, "no JSON object")
        return answer

    def follow(self, arguments: list[str], *, say: Callable[[str], None]) -> None:
        """Run a longer Python module of the product, passing on each line that it prints. Raises CommandError."""
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that it can be ended together with what it started
        )
        lines: list[str] = []
        try:
            assert child.stdout is not None
            with child.stdout as output:
                for line in output:
                    lines.append(line)
                    say(line.rstrip())
            code = child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if code != 0:
            raise CommandError(arguments, code, "".join(lines))

    def down(self) -> None:
        """End everything of this workspace, whatever it is doing; a keyboard interrupt does not reach this command.

        Raises CommandError where something may still run.
        """
        if self._is_up:
            self.run("down", "--now", in_own_session=True)
            self._is_up = False

    def drop(self, name: str, rows: list[dict[str, Any]]) -> Path:
        """Put a data file into the inbox, complete from the moment it has its name."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = self.workspace / "inbox" / name
        files.write_durably(path, text.encode())
        return path

    def training_status(self) -> dict[str, Any]:
        """Return the status file, {} where there is none yet."""
        try:
            value = files.read_json(self.workspace / "status" / "training_status.json")
        except FileNotFoundError:
            return {}
        return dict(value)

    def checkpoints(self) -> list[int]:
        """Return the steps of the committed checkpoints, oldest first."""
        names = [path.name for path in (self.workspace / "current_model").glob("checkpoint-*")]
        return sorted(int(name.partition("-")[2]) for name in names if name.partition("-")[2].isdigit())
