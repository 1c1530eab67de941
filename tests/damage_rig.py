"""The ways in which a file of a checkpoint can be damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, Path], None]
"""Does it to a file; the second one is the same file of another step."""


def cut(path: Path, other: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: -max(1, len(data) // 10)])


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path, other: Path) -> None:
    path.unlink()


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0b0001_0000
    path.write_bytes(bytes(data))


def swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    if mine == theirs:
        raise AssertionError(f"{path.name} is the same at both steps: swapping it would show nothing")
    path.write_bytes(theirs)


def fill_with_zeros(path: Path, other: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES: dict[str, Damage] = {
    "cut": cut,
    "emptied": empty,
    "removed": remove,
    "one bit flipped": flip,
    "swapped": swap,
    "zero-filled": fill_with_zeros,
}
