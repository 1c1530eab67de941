"""The main job on real input, start to end, with a kill -9 in the middle: what ``overnight demo`` does."""

from __future__ import annotations

from overnight.demo.story import run

__all__ = ["run"]
