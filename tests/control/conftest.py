"""Workspaces for the verbs: made by init, their daemon a lock held by the test."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.control import making
from overnight.database import queue
from overnight.database.connection import connect
from overnight.disk import checkpoints, files
from overnight.disk.layout import Layout
from overnight.domain.checkpoint import Manifest
from overnight.domain.job import Job, Priority


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "workspace"
    making.init(root, base_model="builtin:tiny", model_name="m", assignments=[], say=lambda text: None)
    return root


@pytest.fixture
def layout(tmp_path: Path, made_once: Path) -> Layout:
    """A fresh copy of a workspace as init makes it."""
    shutil.copytree(made_once, tmp_path / "workspace")
    return Layout(tmp_path / "workspace")


@pytest.fixture
def connection(layout: Layout) -> Iterator[sqlite3.Connection]:
    opened = connect(layout.database)
    yield opened
    opened.close()


@pytest.fixture
def submit(connection: sqlite3.Connection) -> Callable[..., Job]:
    def submit_one(name: str = "a", rejection: str | None = None) -> Job:
        return queue.submit(
            connection, claim=name, file=f"{name}.jsonl", sha256="s", dataset="d", priority=Priority.NORMAL,
            examples=64, accounting={}, rejection=rejection, now=1.0,
        )  # fmt: skip

    return submit_one


@pytest.fixture
def commit(layout: Layout) -> Callable[..., Path]:
    def commit_one(step: int, **locked: Any) -> Path:
        staging = layout.root / "staging"
        staging.mkdir()
        (staging / "weights").write_bytes(b"w" * 100)
        manifest = Manifest(
            step=step, job=1, job_step=step, job_total=16, start_step=0, attempt="x", dataset_id="d", created_at=1.0,
            model_name="m", method="lora", locked={"base_model": "builtin:tiny", "seed": 42, **locked}, data_cursor={},
            fingerprints={}, environment={}, files={},
        )  # fmt: skip
        checkpoints.commit(staging, layout.checkpoint(step), manifest)
        return layout.checkpoint(step)

    return commit_one


@pytest.fixture
def daemon(layout: Layout) -> Iterator[files.Lock]:
    lock = files.Lock(layout.daemon_lock)
    assert lock.acquire(holder={"pid": 77, "host": "h", "since": 1.0})
    yield lock
    lock.release()
