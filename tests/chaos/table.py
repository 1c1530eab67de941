"""What a run of chaos gave, as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from chaos.runner import Injected, Run
from chaos.verdict import Verdict


def table(run: Run, verdict: Verdict, plain: dict[str, str] | None = None) -> str:
    """Return the table of a run, with the plain trainer's column beside it where that was measured."""
    trainer = [done.recovery_s for done in run.injected if _is_trainer_death(done)]
    guards = [done.guard_s for done in run.injected if done.guard_s is not None and done.what != "stop"]
    stopped = [done.guard_s for done in run.injected if done.guard_s is not None and done.what == "stop"]
    other = [
        done.recovery_s for done in run.injected if done.what == "kill" and set(done.victims) <= {"loop", "watchdog"}
    ]
    rows = {
        "faults": str(len(run.injected)),
        "not recovered": str(sum(1 for done in run.injected if not done.is_recovered)),
        "orphans": str(len(verdict.orphans)),
        "bytes equal": "yes" if verdict.is_equal else "NO",
        "steps of the result": str(verdict.steps),
        "trainer dead, to its next step": times(trainer),
        "guard killed, to the next step": times(other),
        "guard killed, both there again": times(guards),
        "guard left stopped, both there again": times(stopped),
        "guards killed and later than 5 s": str(verdict.late_guards),
        "starts by the operator": str(run.ups),
        "wall clock": f"{run.wall_s:.0f} s",
    }
    width = max(len(name) for name in rows)
    lines = [f"{'':{width}}  {'Overnight':<44}" + ("plain trainer" if plain else "")]
    for name, value in rows.items():
        beside = (plain or {}).get(name, "")
        lines.append(f"{name:{width}}  {value:<44}{beside}".rstrip())
    lines += ["", *_counts(run.injected)]
    if run.passed_over:
        lines.append(f"passed over, the victim was not there: {run.passed_over}")
    if run.freezer:
        lines.append(f"frozen members were killed without frost: {run.freezer}")
    return "\n".join(lines)


def _is_trainer_death(done: Injected) -> bool:
    return done.victims == ("trainer",) and done.what in ("kill", "crash") and done.is_recovered


def times(values: Sequence[float]) -> str:
    if not values:
        return "-"
    ordered = sorted(values)
    p95 = ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]
    return f"median {ordered[len(ordered) // 2]:.2f}  p95 {p95:.2f}  max {ordered[-1]:.2f} s  (n={len(ordered)})"


def _counts(injected: Sequence[Injected]) -> list[str]:
    """Return how often each member was hit at each moment, and how often by each kind of fault."""
    by_place = Counter((victim, done.moment) for done in injected for victim in done.victims)
    moments = sorted({moment for _, moment in by_place})
    victims = sorted({victim for victim, _ in by_place})
    width = max(map(len, [*victims, "hit at"])) if victims else 8
    lines = [f"{'hit at':{width}}  " + "".join(f"{moment:>10}" for moment in moments)]
    for victim in victims:
        lines.append(f"{victim:{width}}  " + "".join(f"{by_place[victim, moment] or '':>10}" for moment in moments))
    kinds = Counter(done.what for done in injected)
    phases = Counter(done.phase for done in injected)
    lines.append("by kind:  " + "  ".join(f"{what} {count}" for what, count in kinds.most_common()))
    lines.append(
        "the trainer was then:  " + "  ".join(f"{phase or '-'} {count}" for phase, count in phases.most_common())
    )
    return lines
