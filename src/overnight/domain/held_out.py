"""Which rows are held out: it hangs on a row's bytes alone, so the same row is held out in every job."""

from __future__ import annotations

import xxhash


def is_held_out(line: bytes, share: float) -> bool:
    """Return whether a row belongs to the held-out share, by the hash of its bytes (without the line feed)."""
    return share > 0 and xxhash.xxh3_64_intdigest(line) < share * 2**64
