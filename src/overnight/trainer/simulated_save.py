"""What a simulated trainer saves: a chain of hashes and the ledger of all rows, in a checkpoint like any other."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from overnight.disk import checkpoints, files, needs
from overnight.disk.layout import Layout
from overnight.domain import room
from overnight.domain.attempt import Spec
from overnight.domain.checkpoint import Manifest
from overnight.domain.room import Need

STATE = "state.json"


@dataclass(slots=True)
class Model:
    """What is trained."""

    chain: str  # a hash over everything that was ever done to it
    ledger: list[str]  # every row consumed, in order
    step: int  # global
    job_step: int


class Saver:
    """One save."""

    def __init__(self, spec: Spec, model: Model, base: dict[str, str], *, steps: int, padding: int = 0) -> None:
        self.spec = spec
        self.model = model
        self.base = base
        self.steps = steps
        self.padding = padding  # bytes that each checkpoint is larger
        self.layout = Layout(Path(spec.workspace))
        self.staging = self.layout.model / f".{spec.attempt}.staging"

    def need(self) -> Need:
        """Return what it takes, as the real trainer reckons it."""
        known = needs.of_newest(checkpoints.newest_complete(self.layout.model))
        return known or room.of_numbers(0, basis="the shape of the adapter")

    def clear(self) -> None:
        """Remove what was written and not committed."""
        if self.staging.exists():
            files.remove_tree(self.staging, inside=self.layout.model)

    def write(self) -> None:
        """Write and commit."""
        self.clear()
        files.make_directory(self.staging)
        state = {"chain": self.model.chain, "ledger": self.model.ledger, "step": self.model.step}
        (self.staging / STATE).write_text(json.dumps(state))
        (self.staging / "weights.bin").write_bytes(self.model.chain.encode() * 8 + bytes(self.padding))
        target = self.layout.checkpoint(self.model.step)
        if os.path.lexists(target):
            checkpoints.set_aside(target, self.layout.trash)
        checkpoints.commit(self.staging, target, self._manifest())

    def _manifest(self) -> Manifest:
        settings = self.spec.settings
        lora = settings["lora"]
        assert isinstance(lora, dict)
        return Manifest(
            step=self.model.step,
            job=self.spec.job,
            job_step=self.model.job_step,
            job_total=self.steps,
            start_step=self.spec.start_step,
            attempt=self.spec.attempt,
            dataset_id=self.spec.dataset_id,
            created_at=time.time(),
            model_name=str(settings["model_name"]),
            method=str(settings["method"]),
            locked={
                **{key: settings[key] for key in ("model_name", "base_model", "max_length", "method", "seed")},
                **{f"lora.{key}": value for key, value in lora.items()},
            },
            data_cursor={"rows": len(self.model.ledger)},
            fingerprints={"dataset": self.spec.dataset_id, **self.base},
            environment={"threads": self.spec.threads, "simulated": True},
            files={},
        )
