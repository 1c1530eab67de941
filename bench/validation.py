"""Speed and memory of judging data files, on one core: one JSON line a case.

    python bench/validation.py [--megabytes 200] [--gigabyte]

Each case is judged in a process of its own, as `overnight validate` does it: read, hashed, parsed, checked, searched
for duplicates. One case also counts tokens; some also store the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = "time year people way day man thing woman life child world school state family group".split()  # noqa: SIM905

CHILD = """
import json, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pathlib import Path
from overnight.disk import datasets, tokenizer
from overnight.disk.scanning import Rules
source, base, store = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
encoder = tokenizer.load_encoder(Path(base)) if base else None
begun, used = time.perf_counter(), time.process_time()
if store:
    found = datasets.store(source, Path(store), rules=Rules(), encoder=encoder)
else:
    found = datasets.validate(source, rules=Rules(), encoder=encoder)
wall, cpu = time.perf_counter() - begun, time.process_time() - used
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"megabytes": found.bytes / 1e6, "rows": found.rows, "bad": found.rejected, "seconds": round(wall, 3),
    "mb_per_s": round(found.bytes / 1e6 / wall, 1), "mb_per_cpu_s": round(found.bytes / 1e6 / cpu, 1),
    "peak_rss_mb": round(int(peak.split()[1]) / 1024), "torch": "torch" in sys.modules}))
"""


def row_of(size: int, form: str, number: int, chance: random.Random) -> bytes:
    words = " ".join(chance.choices(WORDS, k=size // 5))
    half = max(1, len(words) // 2)
    asked, said = words[:half], words[half:] or "yes"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    value: dict[str, Any]
    if form == "mixed" and number % 3 == 1:
        value = {"text": words}
    elif form == "mixed" and number % 3 == 2:
        value = {"prompt": asked, "completion": said}
    else:
        value = {"messages": messages}
    if form == "extra keys":
        value = {"id": number, "source": "bench", **value}
    raw = json.dumps(value).encode()
    return raw[:-5] if form == "one bad row in 10,000" and number % 10_000 == 5_000 else raw


def write(path: Path, size: int, form: str, num_bytes: int) -> None:
    """Write rows of about a size; a pool of them, numbered, so that no two are equal."""
    chance = random.Random(1)
    overhead = 85 if form != "text" else 15
    pool = [row_of(max(10, size - overhead), form, number, chance) for number in range(20_000)]
    with open(path, "wb") as file:
        written = turn = 0
        while written < num_bytes:
            block = b"\n".join(_told_apart(pool, turn)) + b"\n"
            file.write(block)
            written += len(block)
            turn += 1


def _told_apart(pool: list[bytes], turn: int) -> Iterator[bytes]:
    mark = f"{turn} ".encode()
    for row in pool:
        head, quote, tail = row.partition(b'"content": "') if b'"content"' in row else row.partition(b': "')
        yield head + quote + mark + tail


def measure(path: Path, *, base: str = "", store: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), base, store], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--gigabyte", action="store_true", help="also one file of 1 GB in rows of 100 bytes")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the files are made")
    given = parser.parse_args()
    from overnight.disk.builtin import make_tiny

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make_tiny(folder / "tiny")
        (folder / "datasets").mkdir()
        path = folder / "rows.jsonl"
        for size in (100, 300, 1000):
            write(path, size, "messages", given.megabytes * 1_000_000)
            tell("messages", size, measure(path))
            if size == 300:
                tell("messages, tokens counted", size, measure(path, base=str(folder / "tiny")))
                tell("messages, stored", size, measure(path, store=str(folder / "datasets")))
        for form in ("mixed", "extra keys", "one bad row in 10,000"):
            write(path, 300, form, given.megabytes * 1_000_000)
            tell(form, 300, measure(path))
        if given.gigabyte:
            write(path, 100, "messages", 1_000_000_000)
            tell("messages, 1 GB, stored", 100, measure(path, store=str(folder / "datasets")))


def tell(case: str, size: int, found: dict[str, Any]) -> None:
    shown = {"bench": "validation", "case": case, "row_bytes": round(found["megabytes"] * 1e6 / found["rows"]), **found}
    print(json.dumps({**shown, "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()
