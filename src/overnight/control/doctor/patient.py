"""What several checks look at: each thing is read once, and a part that cannot be read is no reason to stop."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property

from overnight import starting
from overnight.control import settings
from overnight.control.settings import Checked
from overnight.database import events
from overnight.database.connection import connect_readonly
from overnight.disk import config
from overnight.disk.layout import Layout
from overnight.domain.errors import OvernightError
from overnight.domain.start import Start


class Patient:
    """One workspace under examination."""

    def __init__(self, layout: Layout, *, now: float) -> None:
        self.layout = layout
        self.now = now  # unix seconds

    @cached_property
    def checked(self) -> Checked:
        """What the validator says of the settings; its ``settings`` are None where they are broken."""
        return settings.check(self.layout)

    @cached_property
    def start(self) -> Start:
        """Where the next job starts from, as the dispatcher finds it."""
        model = self.checked.settings.base_model if self.checked.settings is not None else None
        committed = starting.told_step(self.layout)
        try:
            with self.connected() as connection:
                event = events.newest_of(connection, "checkpoint.committed")
            committed = int(event["data"].get("step", 0)) if event is not None else committed
        except (OvernightError, sqlite3.Error):
            pass  # the check of the database tells it
        return starting.find(self.layout, base_model=model, ever_committed=committed)

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """Open the database for reading, in the thread that asks. Raises OvernightError."""
        with closing(connect_readonly(self.layout.database)) as connection:
            yield connection

    def number(self, section: str, name: str, default: float) -> float:
        """Return one number of the settings, also where the rest of them is broken."""
        return config.raw_number(self.layout, section, name, default)
