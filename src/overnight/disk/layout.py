"""Every path of a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from overnight.domain.checkpoint import checkpoint_name


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one workspace; nothing here touches the disk."""

    root: Path  # absolute, links resolved

    # what people read and edit
    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def config_schema(self) -> Path:
        return self.root / "config.schema.json"

    @property
    def config_lock(self) -> Path:
        return self.root / ".config_lock.json"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def waiting(self) -> Path:
        return self.root / "queue" / "waiting"

    @property
    def processing(self) -> Path:
        return self.root / "queue" / "processing"

    @property
    def done(self) -> Path:
        return self.root / "done"

    @property
    def failed(self) -> Path:
        return self.root / "failed"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected"

    @property
    def model(self) -> Path:
        return self.root / "current_model"

    @property
    def versions(self) -> Path:
        return self.root / "models"

    @property
    def status_file(self) -> Path:
        return self.root / "status" / "training_status.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def crashes(self) -> Path:
        return self.root / "crashes"

    # ours
    @property
    def state(self) -> Path:
        return self.root / ".overnight"

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def datasets(self) -> Path:
        return self.state / "datasets"

    @property
    def claimed(self) -> Path:
        """Files taken from the inbox and not yet judged: one folder a claim."""
        return self.state / "claimed"

    @property
    def attempts(self) -> Path:
        return self.state / "attempts"

    @property
    def candidates(self) -> Path:
        """Jobs that the gate keeps aside: one folder an attempt."""
        return self.state / "candidates"

    @property
    def trash(self) -> Path:
        return self.state / "trash"

    @property
    def base(self) -> Path:
        """Where a builtin base model is made."""
        return self.state / "base"

    @property
    def daemon_lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def lease(self) -> Path:
        """Which machine works here, for those that share the disk."""
        return self.state / "lease.json"

    @property
    def watchdog_lock(self) -> Path:
        return self.state / "watchdog.lock"

    @property
    def model_lock(self) -> Path:
        """Held by the one trainer of this model."""
        return self.state / "model.lock"

    @property
    def checkpoints_lock(self) -> Path:
        """Held by whoever opens an attempt, and by whoever removes checkpoints: the one never while the other."""
        return self.state / "checkpoints.lock"

    @property
    def backup_lock(self) -> Path:
        """Held by the process that makes copies in the second place."""
        return self.state / "backup.lock"

    @property
    def backup_memory(self) -> Path:
        """What is known of the second place, and what is copied right now."""
        return self.state / "backup.json"

    @property
    def transition(self) -> Path:
        """The plan that puts another version in use: while it is there, it is to be carried out."""
        return self.state / "transition.json"

    @property
    def consolidation(self) -> Path:
        """Where a merge is told what to do, and tells how it goes."""
        return self.state / "consolidation"

    @property
    def history(self) -> Path:
        """Where the checkpoints of other versions lie; inside the model's folder, so that they are only renamed."""
        return self.model / ".history"

    @property
    def tokens(self) -> Path:
        """Tokens kept for the next attempt."""
        return self.state / "tokens"

    @property
    def spare_lock(self) -> Path:
        """The lock of the process that forks trainers."""
        return self.state / "spare.lock"

    @property
    def spare_log(self) -> Path:
        """What the libraries print while the spare trainer loads them."""
        return self.state / "spare.log"

    @property
    def daemon_state(self) -> Path:
        """What the loop says of itself on each tick."""
        return self.state / "daemon.json"

    @property
    def paces(self) -> Path:
        """How long the moves of trainers usually take."""
        return self.state / "pace.json"

    def checkpoint(self, step: int) -> Path:
        return self.model / checkpoint_name(step)

    def rows(self, dataset: str) -> Path:
        """Return where a stored dataset's rows lie."""
        return self.datasets / dataset / "rows.jsonl"

    def attempt(self, attempt: str) -> Path:
        return self.attempts / attempt

    def log(self, name: str) -> Path:
        """Return the log of "daemon", "watchdog", "anti-stuck" or "trainer"."""
        return self.logs / f"{name.replace('-', '_')}.log"

    def folders(self) -> list[Path]:
        """Return every folder that a workspace consists of."""
        return [
            self.inbox, self.waiting, self.processing, self.done, self.failed, self.rejected, self.model,
            self.versions, self.status_file.parent, self.logs, self.crashes, self.state, self.datasets, self.claimed,
            self.attempts, self.trash, self.base,
        ]  # fmt: skip
