"""Whether the next save fits: what it needs, what the disk has left, and what there is to say about it.

What is needed is read off the newest checkpoint; before the first one it follows from the shapes of what is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RESERVE_BYTES = 1 << 20
"""Beside a save there is to be room for the history, the heartbeat and the last word."""

RESERVE_INODES = 8
BLOCK_BYTES = 4096
"""A file takes whole blocks."""

SMALL_PARTS_BYTES = 256 << 10
"""Schedule, random states, settings, manifest: beside weights, optimizer and tokenizer."""

SMALL_PARTS = 16
FLOAT_BYTES, MOMENTS = 4, 2
"""What is trained is saved in 32 bits, and the optimizer remembers two numbers for each of it."""

ALL_LINEAR, MATRIX = "all-linear", 2
UNRANKED = ("embed", "lm_head", "wte", "wpe", "norm")
"""Layers that "all-linear" leaves alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a file system has left; None where it cannot be told."""

    free_bytes: int | None  # that this user may still write
    free_inodes: int | None  # None too where the file system has no fixed number of them
    is_read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one save takes."""

    bytes: int
    inodes: int
    basis: str  # where the figure comes from, in words


def of_checkpoint(sizes: Iterable[int], *, folders: int = 1, basis: str) -> Need:
    """Return what a save like an earlier one takes, from the sizes of its files."""
    blocks = [-(-size // BLOCK_BYTES) + 1 for size in sizes]  # one more each: the next one may be a little longer
    return Need(bytes=(sum(blocks) + folders) * BLOCK_BYTES, inodes=len(blocks) + folders, basis=basis)


def of_numbers(trained: int, *, other_bytes: int = 0, other_files: int = 0, basis: str) -> Need:
    """Return what a first save takes, from how many numbers are trained and from the files copied beside them."""
    return Need(
        bytes=trained * FLOAT_BYTES * (1 + MOMENTS) + other_bytes + SMALL_PARTS_BYTES,
        inodes=SMALL_PARTS + other_files,
        basis=basis,
    )


def adapter_numbers(shapes: Mapping[str, tuple[int, ...]], *, rank: int, targets: str | Iterable[str]) -> int:
    """Return how many numbers an adapter of a rank has on a base with these tensors."""
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    return sum(
        rank * sum(shape)
        for layer, shape in layers.items()
        if len(shape) == MATRIX and _is_target(layer, targets if isinstance(targets, str) else list(targets))
    )


def _is_target(layer: str, targets: str | list[str]) -> bool:
    if targets == ALL_LINEAR:
        return not any(part in layer for part in UNRANKED)
    if isinstance(targets, str):
        return re.fullmatch(targets, layer) is not None
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def all_numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many numbers a model has."""
    total = 0
    for shape in shapes.values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def trouble(space: Space, need: Need | None, *, saves: int = 1) -> str | None:
    """Return why so many saves do not fit, or None where they do or nobody can tell."""
    if space.is_read_only:
        return "the file system is read-only"
    what = "the next save needs" if saves == 1 else f"the next {saves} saves need"
    wanted = saves * need.bytes + RESERVE_BYTES if need is not None else 0
    if space.free_bytes is not None and space.free_bytes < max(wanted, 1):
        free = f"{amount(space.free_bytes)} are free"
        return f"{free}, {what} {amount(wanted)} (by {need.basis})" if need is not None else f"the disk is full, {free}"
    files = saves * need.inodes + RESERVE_INODES if need is not None else 1
    if space.free_inodes is not None and space.free_inodes < files:
        return f"the file system is out of inodes: {space.free_inodes} are free, {what} {files}"
    return None


def amount(size: float) -> str:
    """Return a number of bytes for people, in the unit that fits."""
    for unit, width in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= width:
            return f"{size / width:.2f} {unit}"
    return f"{size:.0f} bytes"
