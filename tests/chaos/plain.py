"""The plain trainer under kills, measured the same way: what its column in the table says.

Only the trainer can be killed there, and only by SIGKILL: it has no guards, and stays stopped where it is stopped. It
is started again at once, as ``torchrun --max-restarts`` or a loop in a shell would.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.table import times
from chaos.workspace import REAL, Workspace, rows_of

SAVE_EVERY = 8
EPOCHS_A_KILL = 1.2
BOUND_S = 120.0
TRIES = 2
"""A start that fails twice in the same way fails for ever."""


@dataclass
class Plain:
    """One work and the ways to run it."""

    folder: Path
    base: Path
    epochs: int

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("plain_trainer.py")
        out.mkdir(parents=True, exist_ok=True)
        with open(out.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, str(script), str(self.base), str(self.folder / "rows.jsonl"), str(out),
                 str(self.epochs), str(SAVE_EVERY)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            )  # fmt: skip


def measure(folder: Path, *, seed: int, kills: int) -> dict[str, str]:
    """Kill the plain trainer so many times, half of them inside of saves; return its column of the table."""
    folder.mkdir(parents=True)
    workspace = Workspace(folder / "workspace", REAL).init()  # only for its base model
    base = next(path.parent for path in workspace.root.rglob("model.safetensors"))
    (folder / "rows.jsonl").write_bytes(rows_of(0, 64))
    plain = Plain(folder, base, epochs=max(4, round(kills * EPOCHS_A_KILL)))
    undisturbed = folder / "undisturbed"
    assert plain.start(undisturbed).wait(3600) == 0, (folder / "undisturbed.log").read_text()[-2000:]
    source = random.Random(seed)
    out = folder / "killed"
    begun, recoveries, lost = time.monotonic(), [], 0
    child = plain.start(out)
    _next_step(out, child, 0.0)
    injected = 0
    while injected < kills and child.poll() is None:
        _aim(out, source, child)
        if child.poll() is not None:
            break
        child.kill()
        child.wait()
        injected += 1
        at = time.monotonic()
        for _ in range(TRIES):
            child = plain.start(out)
            step_at = _next_step(out, child, at)
            if step_at is not None:
                recoveries.append(step_at - at)
                break
        else:  # it would never come back by itself: what its user does in the end is done here, and it counts
            lost += 1
            shutil.rmtree(max(out.glob("checkpoint-*"), key=lambda path: int(path.name[11:])))
            child = plain.start(out)
            _next_step(out, child, at)
    code = child.wait(3600)
    return {
        "faults": f"{injected} (its trainer only, SIGKILL)",
        "not recovered": str(lost),
        "orphans": "-",
        "bytes equal": ("yes" if _digest(out) == _digest(undisturbed) else "NO") if code == 0 else "it did not end",
        "steps of the result": str(_last(out)),
        "trainer dead, to its next step": times(recoveries),
        "guard killed, to the next step": "it has no guards",
        "starts by the operator": str(injected + lost + 1),
        "wall clock": f"{time.monotonic() - begun:.0f} s",
    }


def _aim(out: Path, source: random.Random, child: subprocess.Popen[bytes]) -> None:
    """Wait some steps; then, half of the time, for a checkpoint folder that appears, and a random instant more."""
    wanted = _last(out) + source.randint(1, 2 * SAVE_EVERY)
    while _last(out) < wanted and child.poll() is None:
        time.sleep(0.002)
    if source.random() < 0.5:
        known = set(os.listdir(out))
        while child.poll() is None and not any("checkpoint" in name for name in set(os.listdir(out)) - known):
            time.sleep(0.0005)
        time.sleep(source.random() * 0.02)


def _next_step(out: Path, child: subprocess.Popen[bytes], after: float) -> float | None:
    """Return when this process ended its first step; None where it ends without one."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        for line in _lines(out):
            pid, _, at = line.split()
            if int(pid) == child.pid and float(at) > after:
                return float(at)
        if child.poll() is not None:
            return None
        time.sleep(0.01)
    child.kill()
    child.wait()
    return None


def _lines(out: Path) -> list[str]:
    try:
        return [line for line in (out / "steps.txt").read_text().splitlines() if line.count(" ") == 2]
    except OSError:
        return []


def _last(out: Path) -> int:
    lines = _lines(out)
    return int(lines[-1].split()[1]) if lines else 0


def _digest(out: Path) -> str:
    newest = max(out.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    digest = hashlib.sha256(newest.name.encode())
    for name in ("adapter_model.safetensors", "optimizer.pt"):
        digest.update((newest / name).read_bytes())
    return digest.hexdigest()
