"""Chaos by command: ``PYTHONPATH=tests python -m chaos --kills 300 --seed 7``. Exit code 0: every promise was kept."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from chaos.runner import Chaos
from chaos.table import table
from chaos.verdict import judge, undisturbed
from chaos.workspace import REAL, SIMULATED


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Random faults over all members.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same faults")
    parser.add_argument("--simulated", action="store_true", help="no torch: the trainer is a chain of hashes")
    parser.add_argument("--plain", type=int, default=0, help="so many kills of the plain trainer beside it")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds that the faults may take")
    parser.add_argument("--keep", action="store_true", help="leave the workspace where it is")
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    kind = SIMULATED if options.simulated else REAL
    again = f"make chaos N={options.kills} SEED={seed}" + (" SIMULATED=1" if options.simulated else "")
    print(f"{kind.name}, seed {seed}; again: {again}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=options.dir)).resolve()
    chaos = Chaos(folder / "workspace", kind, seed=seed, kills=options.kills, tell=lambda text: print(text, flush=True))
    is_kept = True
    try:
        run = chaos.run(limit_s=options.limit)
        print(f"the undisturbed run of the same {len(run.files)} files ...", flush=True)
        verdict = judge(run, undisturbed(folder / "undisturbed", kind, run.files))
        plain = None
        if options.plain:
            from chaos.plain import measure

            plain = measure(folder / "plain", seed=seed, kills=options.plain)
        print("\n" + table(run, verdict, plain) + "\n")
        for complaint in verdict.complaints:
            print(f"BROKEN: {complaint}")
        is_kept = options.keep or bool(verdict.complaints)
        return 1 if verdict.complaints else 0
    finally:
        chaos.workspace.end()
        print(f"seed {seed}; again: {again}" + (f"; the workspace is left in {folder}" if is_kept else ""))
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
