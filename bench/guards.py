"""What the guards cost: memory (PSS) and processor time of watchdog and loop, idle and while a trainer works.

    python bench/guards.py [--seconds 60] [--torchrun]

The trainer is a simulated one of 50 steps a second, as the loop has the same work with any. ``--torchrun`` measures the
agent of ``torchrun`` beside it, while its worker sleeps.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MB, AIM_MB, LIMIT_PERCENT = 60.0, 25.0, 1.0
TICKS = os.sysconf("SC_CLK_TCK")
VARIABLE = "OVERNIGHT_SIMULATED"


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def tell(name: str, pids: dict[str, int], seconds: float) -> None:
    before = {who: used_s(pid) for who, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    total_mb = total_percent = 0.0
    for who, pid in pids.items():
        mb, percent = pss_mb(pid), 100 * (used_s(pid) - before[who]) / passed
        total_mb, total_percent = total_mb + mb, total_percent + percent
        print(json.dumps({"while": name, "who": who, "pss_mb": round(mb, 1), "cpu_percent": round(percent, 2)}))
    if len(pids) > 1:
        print(
            json.dumps(
                {
                    "while": name, "who": "together", "pss_mb": round(total_mb, 1),
                    "cpu_percent": round(total_percent, 2), "aim_mb": AIM_MB,
                    "ok": total_mb < LIMIT_MB and total_percent < LIMIT_PERCENT,
                }
            ),
            flush=True,
        )  # fmt: skip


def overnight(root: Path, *words: str, step_s: float = 0.02) -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-m", "overnight", "-C", str(root), *words, "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, VARIABLE: f"step_s={step_s}"},
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def measure_guards(folder: Path, seconds: float) -> None:
    root = folder / "workspace"
    words = ["--base-model", "builtin:tiny", "--set", "train.batch_size=1", "--set", "checkpoint.every_steps=500"]
    words += ["--set", "disk.min_free_gb=0"]
    subprocess.run([sys.executable, "-m", "overnight", "init", str(root), *words], check=True, capture_output=True)
    started = overnight(root, "up", "--detach")
    pids = {who: started[who]["pid"] for who in ("daemon", "watchdog")}
    try:
        time.sleep(3)
        tell("idle", pids, seconds)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(f'{{"text": "row {number}"}}\n' for number in range(int(60 * (seconds + 60)))))
        overnight(root, "add", str(rows))
        while overnight(root, "status").get("trainer") is None:
            time.sleep(0.2)
        time.sleep(3)
        tell("training", pids, seconds)
    finally:
        overnight(root, "down", "--now")


def measure_torchrun(folder: Path, seconds: float) -> None:
    program = Path(sys.executable).with_name("torchrun")
    worker = folder / "worker.py"
    worker.write_text("import time\ntime.sleep(600)\n")
    child = subprocess.Popen([str(program), "--standalone", "--nproc-per-node", "1", str(worker)], stderr=-3)
    try:
        time.sleep(15)
        tell("training", {"torchrun's agent": child.pid}, min(seconds, 20))
    finally:
        child.terminate()
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--torchrun", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="overnight-bench-"))
    try:
        measure_guards(folder, options.seconds)
        if options.torchrun:
            measure_torchrun(folder, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
