"""A workspace with real trainers in it: rows, specs, processes, and the comparison of what they leave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overnight.disk import attempts, builtin, checkpoints
from overnight.disk.layout import Layout
from overnight.domain.attempt import Heartbeat, Outcome, Report, Spec, attempt_id
from overnight.domain.checkpoint import CheckpointReport

SETTINGS: dict[str, Any] = {
    "model_name": "rig",
    "base_model": "builtin:tiny",
    "max_length": 64,
    "train": {"batch_size": 4, "learning_rate": 0.002, "threads": 1, "device": "cpu"},
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
    "checkpoint": {"every_steps": 3},
}


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the rig's settings with changes given as ``section__key``."""
    value = json.loads(json.dumps(SETTINGS))
    for key, item in changes.items():
        section, _, inner = key.partition("__")
        if inner:
            value.setdefault(section, {})[inner] = item
        else:
            value[section] = item
    return dict(value)


def sums(seed: int, count: int) -> list[dict[str, Any]]:
    """Return chat rows of sums; each seed gives other rows."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = source.randint(0, 99), source.randint(0, 999)
        rows.append(
            {"messages": [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": str(a + b)}]}
        )
    return rows


class Rig:
    """One workspace, driven as the daemon drives it."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.layout = Layout(root)
        for folder in self.layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        builtin.make_tiny(self.layout.base / "tiny")
        self.settings = merged(changes)
        self.launches: dict[int, int] = {}
        self.starts: dict[int, int] = {}

    def rows(self, rows: list[Any], name: str) -> Path:
        """Store rows as the intake does; return their path."""
        path = self.layout.datasets / name / "rows.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def newest(self) -> CheckpointReport | None:
        return checkpoints.newest_verified(self.layout.model)[0]

    def spec(self, job: int, rows: Path, **changes: Any) -> Spec:
        """Return the spec of the next launch of a job: resume, continue or fresh, as the contract says."""
        newest = self.newest()
        manifest = newest.manifest if newest is not None else None
        mode = "fresh" if manifest is None else "resume" if manifest.job == job else "continue"
        start = manifest.start_step if manifest and mode == "resume" else manifest.step if manifest else 0
        self.launches[job] = self.launches.get(job, 0) + 1
        number = attempt_id(job, self.launches[job])
        spec = Spec(
            kind="fit", attempt=number, job=job, workspace=str(self.layout.root), dataset=str(rows),
            dataset_id=hashlib.sha256(rows.read_bytes()).hexdigest(), settings=self.settings,
            base_model=builtin.resolve(self.layout, self.settings["base_model"]), base_fingerprint=None,
            start_step=start, checkpoint=newest.path if newest is not None else None, mode=mode,
            seed=1000 + start, threads=1, created_at=time.time(),
        )  # fmt: skip
        return dataclasses.replace(spec, **changes)

    def place(self, spec: Spec) -> Path:
        """Make the attempt directory."""
        folder = self.layout.attempt(spec.attempt)
        folder.mkdir(parents=True)
        attempts.write_spec(folder, spec)
        return folder

    def launch(self, spec: Spec, **environment: str) -> Trainer:
        """Start a trainer process."""
        folder = self.place(spec)
        with open(folder / "trainer.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "overnight.trainer", str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )  # fmt: skip
        return Trainer(folder, process)

    def run(self, spec: Spec, *, fault: str | None = None) -> Report:
        """Run an attempt inside this process, which has torch loaded already."""
        from overnight.domain import config
        from overnight.trainer import __main__ as entry
        from overnight.trainer import faults, fit
        from overnight.trainer.pulse import Pulse
        from overnight.trainer.run import Run
        from overnight.trainer.wishes import SIGNALS, AskedToLeave, Wishes

        folder = self.place(spec)
        (folder / "output").mkdir()
        pulse = Pulse(folder, spec)
        wishes = Wishes(folder, unwatched_limit_s=1e9)
        run = Run(
            spec=spec, settings=config.parse(spec.settings), folder=folder, scratch=folder / "output", pulse=pulse,
            wishes=wishes, faults=faults.Faults(fault), owns_model=lambda: True,
        )  # fmt: skip
        before = {number: signal.getsignal(number) for number in SIGNALS}
        wishes.listen()
        try:
            report = fit.fit(run)
        except AskedToLeave as asked:
            report = entry.left_early(pulse, asked)
        except BaseException as error:  # as the trainer's own border does
            report = entry.crashed(pulse, error)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        entry.leave(folder, pulse, report)
        return report

    def train(self, job: int, rows: Path, *, fault: str | None = None, **changes: Any) -> Report:
        """Launch a job as often as it needs; the fault strikes the first launch only. Return the last report."""
        for launch in range(3):
            report = self.run(self.spec(job, rows, **changes), fault=fault if launch == 0 else None)
            if report.outcome is Outcome.COMPLETED:
                return report
            assert fault is not None, report.message
        raise AssertionError(report.message)

    def state(self) -> dict[str, str]:
        """Return a hash of everything exact in the newest checkpoint."""
        newest = self.newest()
        assert newest is not None
        return digests(Path(newest.path))


class Trainer:
    """A trainer process."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def until(self, condition: Callable[[Heartbeat], bool], *, timeout: float = 60) -> Heartbeat:
        """Wait for a heartbeat that fulfils the condition."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            heartbeat = attempts.read_heartbeat(self.folder)
            if heartbeat is not None and condition(heartbeat):
                return heartbeat
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        raise AssertionError(f"it never came to that: {self.log()}")

    def end(self, *, timeout: float = 60) -> tuple[int, Report | None]:
        """Wait for the end; return exit code and report."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"it never ended: {self.log()}") from None
        return code, attempts.read_report(self.folder)

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def log(self) -> str:
        return (self.folder / "trainer.log").read_text()[-3000:]


def digests(folder: Path) -> dict[str, str]:
    """Hash every tensor of weights and optimizer, the schedule, the random number states, and the trainer's state."""
    import torch
    from safetensors.torch import load_file

    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.name}:{name}"] = _hash(tensor)
    assert found
    for name in ("optimizer.pt", "scheduler.pt"):
        found |= {f"{name}:{key}": item for key, item in _flat(torch.load(folder / name, weights_only=True))}
        found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    found["rng_state.pth"] = hashlib.sha256((folder / "rng_state.pth").read_bytes()).hexdigest()
    found["trainer_state.json"] = hashlib.sha256((folder / "trainer_state.json").read_bytes()).hexdigest()
    manifest = checkpoints.read_manifest(folder)
    found["cursor"] = json.dumps([manifest.step, manifest.job, manifest.job_step, manifest.data_cursor])
    return found


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{path}/{key}")]
    if isinstance(value, (list, tuple)):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{path}/{index}")]
    return [(path, _hash(value) if hasattr(value, "numpy") else repr(value))]


def _hash(tensor: Any) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(dtype=__import__("torch").uint8)
    return f"{tensor.dtype}{tuple(tensor.shape)}{hashlib.sha256(data.numpy().tobytes()).hexdigest()}"
