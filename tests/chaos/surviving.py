"""What a test of chaos asks of a run: every fault recovered from, every promise kept."""

from __future__ import annotations

import os
from pathlib import Path

from chaos.runner import Chaos
from chaos.table import table
from chaos.verdict import judge, undisturbed
from chaos.workspace import Kind

SEED = int(os.environ.get("OVERNIGHT_CHAOS_SEED", "11"))


def survives(tmp_path: Path, kind: Kind, *, kills: int) -> None:
    """Inject so many faults and judge the end."""
    told: list[str] = []
    again = f"make chaos N={kills} SEED={SEED}" + (" SIMULATED=1" if kind.simulated is not None else "")
    print(f"seed {SEED} (OVERNIGHT_CHAOS_SEED); again: {again}")
    chaos = Chaos(tmp_path.resolve() / "workspace", kind, seed=SEED, kills=kills, tell=told.append)
    try:
        run = chaos.run(limit_s=480)
        verdict = judge(run, undisturbed(tmp_path / "undisturbed" / "workspace", kind, run.files))
        print(table(run, verdict))
        assert not verdict.complaints, verdict.complaints
        assert len(run.injected) == kills
        assert all(done.is_recovered for done in run.injected)
        assert verdict.is_equal
    finally:
        print("\n".join(told))
        chaos.workspace.end()
