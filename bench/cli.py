"""How long the command line takes to start: each command against bare python, interleaved; one JSON line each.

    python bench/cli.py [--jobs 10000] [--rounds 15]

``above_s`` is the median over rounds of (command - bare python in the same round); ``cpu_above_s`` the same in seconds
of CPU, which tells more on a machine that is busy with something else.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from overnight.database.connection import connect, transaction

LIMITS_S = {"help": 0.25, "status": 0.35, "queue --json": None, "config show": None, "events": None}


def fill(workspace: Path, jobs: int) -> None:
    with closing(connect(workspace / ".overnight" / "state.db")) as connection, transaction(connection):
        connection.executemany(
            "INSERT INTO jobs (claim, file, sha256, dataset, state, priority, examples, reason, submitted_at)"
            " VALUES (?, ?, ?, ?, 'queued', 'normal', 64, 'waiting', ?)",
            [(f"c{n}", f"part-{n:05d}.jsonl", f"{n:064x}", f"{n:064x}", 1.7e9 + n) for n in range(jobs)],
        )


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(words: list[str]) -> tuple[float, float]:
    cpu_before, started = cpu_s(), time.perf_counter()
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    spent = time.perf_counter() - started
    if done.returncode not in (0,):
        raise SystemExit(f"{words}: exit {done.returncode}\n{done.stderr.decode()}")
    return spent, cpu_s() - cpu_before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    program = [sys.executable, "-m", "overnight"]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        seconds([*program, "init", str(workspace), "--base-model", "builtin:tiny"])
        fill(workspace, options.jobs)
        inside = [*program, "-C", str(workspace)]
        commands = {
            "help": [*program, "--help"],
            "status": [*inside, "status"],
            "queue --json": [*inside, "queue", "--json"],
            "config show": [*inside, "config", "show"],
            "events": [*inside, "events"],
        }
        above: dict[str, list[float]] = {name: [] for name in commands}
        cpu_above: dict[str, list[float]] = {name: [] for name in commands}
        bare: list[float] = []
        for _ in range(options.rounds):
            for name, words in commands.items():
                base, base_cpu = seconds([sys.executable, "-c", "pass"])
                spent, spent_cpu = seconds(words)
                bare.append(base)
                above[name].append(spent - base)
                cpu_above[name].append(spent_cpu - base_cpu)
    print(json.dumps({"bench": "cli", "command": "python -c pass", "median_s": round(statistics.median(bare), 4)}))
    for name, values in above.items():
        limit = LIMITS_S[name]
        median, cpu = statistics.median(values), statistics.median(cpu_above[name])
        line = {
            "bench": "cli", "command": name, "jobs": options.jobs, "rounds": options.rounds,
            "above_s": round(median, 4), "cpu_above_s": round(cpu, 4), "worst_s": round(max(values), 4),
            "limit_s": limit,
            "ok": limit is None or median <= limit,
        }  # fmt: skip
        print(json.dumps(line))


if __name__ == "__main__":
    main()
