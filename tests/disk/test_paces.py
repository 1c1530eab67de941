"""The memory of paces: it survives, it keeps to its subject, and damage only makes it forget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.disk import paces
from overnight.disk.layout import Layout
from overnight.domain.pace import Kind, Pace, learn


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.state.mkdir()
    return made


KNOWN = {Kind.TRAINING: learn(learn(Pace(), took_s=0.2, wall_s=0.3, moves=2), took_s=1.0, wall_s=1.0, moves=1)}


def test_what_was_learnt_is_read_again(layout: Layout) -> None:
    assert paces.read(layout, "a") == {}
    paces.write(layout, "a", KNOWN)
    assert paces.read(layout, "a") == KNOWN


def test_each_subject_has_its_own_and_the_oldest_goes_first(layout: Layout) -> None:
    for number in range(12):
        paces.write(layout, f"subject {number}", KNOWN)
        paces.write(layout, "the one in use", KNOWN)
    assert paces.read(layout, "subject 0") == {}
    assert paces.read(layout, "subject 11") == paces.read(layout, "the one in use") == KNOWN
    assert paces.read(layout, "another") == {}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"schema": 2, "subjects": {}}', '{"schema": 1, "subjects": {"a": 7}}',
        '{"schema": 1, "subjects": {"a": {"training": {"moves": "x"}}}}',
        '{"schema": 1, "subjects": {"a": {"training": {"moves": 9, "typical_s": NaN, "recent_s": 1, "longest_s": 1,'
        ' "before_s": 0, "sightings": 3}}}}',
        '{"schema": 1, "subjects": {"a": {"training": {"moves": 9, "typical_s": 1, "recent_s": 1, "longest_s": -5,'
        ' "before_s": 0, "sightings": 3}}}}',
    ],
)  # fmt: skip
def test_a_damaged_memory_is_no_memory_and_can_be_written_again(layout: Layout, text: str) -> None:
    layout.paces.write_text(text)
    assert paces.read(layout, "a") == {}
    paces.write(layout, "a", KNOWN)
    assert paces.read(layout, "a") == KNOWN
    assert json.loads(layout.paces.read_text())["schema"] == 1
