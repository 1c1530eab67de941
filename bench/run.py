"""Every bench, one after the other: a table to read, and all figures in one JSON file.

    python bench/run.py [--only training cli ...] [--quick] [--out build/bench.json]

Nothing is asserted: a figure above its limit is marked, and the exit code is 1 only where a bench could not run. Leave
the machine alone while it runs (about half an hour; --quick: about five minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
BENCHES: dict[str, dict[str, list[str]]] = {
    "cli": {"full": [], "quick": ["--rounds", "5"]},
    "validation": {"full": ["--gigabyte"], "quick": ["--megabytes", "50"]},
    "guards": {"full": ["--torchrun"], "quick": ["--seconds", "15"]},
    "checkpoint": {"full": [], "quick": ["--rounds", "5"]},
    "always_safe": {"full": [], "quick": ["--rounds", "2"]},
    "hangs": {"full": ["--torch"], "quick": ["--quick"]},
    "recovery": {"full": [], "quick": ["--rounds", "1", "--kills", "2"]},
    "training": {"full": [], "quick": ["--rounds", "1", "--rows", "800"]},
}
HIDDEN = {"bench", "ok"}


def run(name: str, words: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Run one bench; return its lines and its exit code. What it says beside them passes through."""
    child = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), *words],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    lines: list[dict[str, Any]] = []
    with child.stdout as output:
        for line in output:
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                lines.append({"bench": name, **value})
            else:
                print(f"  {line.rstrip()}", file=sys.stderr)
    return lines, child.wait()


def table_of(name: str, lines: list[dict[str, Any]]) -> Table:
    """Return a bench's lines as a table: one column a figure."""
    columns = list(dict.fromkeys(key for line in lines for key in line if key not in HIDDEN))
    table = Table(title=name, title_justify="left")
    for column in columns:
        table.add_column(
            column.replace("_", " "), justify="left" if column in ("command", "model", "case") else "right"
        )
    for line in lines:
        cells = ["" if line.get(column) is None else str(line[column]) for column in columns]
        table.add_row(*cells, style="red" if line.get("ok") is False else None)
    return table


def machine() -> dict[str, Any]:
    """Return what the figures hang on."""
    return {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Every bench, one after the other.")
    parser.add_argument("--only", nargs="+", choices=list(BENCHES), default=list(BENCHES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "bench.json")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    found: dict[str, Any] = {"schema": 1, "machine": machine(), "quick": options.quick, "lines": []}
    failed: list[str] = []
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines, code = run(name, BENCHES[name]["quick" if options.quick else "full"])
        if code != 0:
            failed.append(name)
        found["lines"] += lines
        if lines:
            console.print(table_of(name, lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    above = [line for line in found["lines"] if line.get("ok") is False]
    console.print(f"figures: {options.out}" + (f"; {len(above)} above their limit" if above else ""))
    if failed:
        console.print(f"could not run: {', '.join(failed)}", style="red")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
