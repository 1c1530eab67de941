"""Row hashes come back sorted, however many there are and wherever they had to be kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from overnight.disk import row_hashes


def random_hashes(count: int, *, seed: int = 0, among: int = 2**63) -> row_hashes.Fingerprints:
    return np.random.default_rng(seed).integers(0, among, count, dtype=np.uint64) * np.uint64(2)


@pytest.mark.parametrize("run", [10_000_000, 1000, 333], ids=["in memory", "in runs", "in uneven runs"])
@pytest.mark.parametrize("among", [2**63, 50], ids=["spread", "crowded"])
def test_everything_comes_back_sorted_and_equal_ones_together(tmp_path: Path, run: int, among: int) -> None:
    hashes = random_hashes(10_000, among=among)
    sorter = row_hashes.Sorter(tmp_path, run=run)
    for start in range(0, len(hashes), 77):
        sorter.add(hashes[start : start + 77])
    parts = [part.copy() for part in sorter.sorted_parts()]
    sorter.close()
    assert np.array_equal(np.concatenate(parts), np.sort(hashes))
    assert sum(map(row_hashes.count_distinct, parts)) == len(np.unique(hashes))
    assert list(tmp_path.iterdir()) == [], "what did not fit in memory had no name and is gone"


def test_extreme_values_are_not_lost(tmp_path: Path) -> None:
    sorter = row_hashes.Sorter(tmp_path, run=2)
    sorter.add(np.array([2**64 - 1, 0, 2**64 - 1, 2**63], dtype=np.uint64))
    sorter.add(np.array([1], dtype=np.uint64))
    assert np.concatenate(list(sorter.sorted_parts())).tolist() == [0, 1, 2**63, 2**64 - 1, 2**64 - 1]
    sorter.close()


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    sorter = row_hashes.Sorter(tmp_path)
    assert [len(part) for part in sorter.sorted_parts()] == [0]
    assert row_hashes.count_distinct(np.empty(0, dtype=np.uint64)) == 0


def test_known_rows_are_counted_over_all_stored_files(tmp_path: Path) -> None:
    mine = np.sort(random_hashes(5000, seed=1, among=20_000))
    paths = []
    for seed in (2, 3):
        stored = np.sort(random_hashes(4000, seed=seed, among=20_000))
        path = tmp_path / f"{seed}.npy"
        with row_hashes.npy_writer(path, len(stored)) as write:
            write(stored[:1000])
            write(stored[1000:])
        assert np.array_equal(np.load(path), stored)
        paths.append(path)
    (tmp_path / "torn.npy").write_bytes(paths[0].read_bytes()[:500])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    opened = row_hashes.opened([*paths, tmp_path / "torn.npy", tmp_path / "junk.npy", tmp_path / "missing.npy"])
    assert len(opened) == 2
    expected = int(np.isin(mine, np.concatenate([np.load(path) for path in paths])).sum())
    assert row_hashes.count_known(mine, opened) == expected > 0
    assert row_hashes.count_known(mine, []) == 0


def test_the_hash_of_a_line_is_the_same_in_every_run() -> None:
    assert row_hashes.of_lines([b'{"text":"a"}', b""]).tolist() == [0x24799CBD98BBE47F, 0x2D06800538D394C2]
