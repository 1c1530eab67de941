"""What the moves of a run usually take, and how long the next one may take before the run counts as stuck.

A move is whatever the trainer counts as progress: a step, an evaluated batch, a loaded part, a save. For each kind of
move the longest of the last few hundred is remembered, in the time that counts (see vitals.py). The limit is a multiple
of it, never under a floor and never over the ceiling of the settings. Where too little is known, the ceiling stands.

Why these numbers. A false alarm costs a restart and trust; seeing a hang some seconds earlier gains seconds. So each
factor lies far above what honest work was ever seen to do:

- *training, idle* (10 s, 20 times): a step that uses no processor at all waits for a device or for nothing. Devices
  shared with neighbours slow down by their number, not twentyfold.
- *training, busy* (60 s, 50 times): a step that computes is doing something; a row of another shape, a recompilation
  or a first call of a kernel may take long, once.
- *the first step* (120 s, 20 times): it compiles, warms up, fills caches, and on a resume passes over rows.
- *loading* (180 s, 20 times): a cold page cache makes reading a model ten times as slow as a warm one.
- *evaluating* (60 s, 40 times): batches of an evaluation are as uneven as the rows held out. Where none was measured
  yet, they are held against the training steps: 100 times as long, at least 300 s.
- *saving* (180 s, 100 times): the disk decides; a full or shared one is a hundred times as slow for minutes.
- *merging* (180 s, 100 times): a layer is merged in an instant, and then a whole model is read or synced in one move.
- *exiting* (60 s, without history): a trainer on its way out has nothing left to do that takes longer.

Rows differ in length, and so do steps. A trainer tells how many times longer than the mean the longest row is; a usual
step stretched so far counts as seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from overnight.domain.attempt import Phase


class Kind(StrEnum):
    """The kinds of moves that are timed apart."""

    LOADING = "loading"
    FIRST = "the first step"
    TRAINING = "training"
    EVALUATING = "evaluating"
    SAVING = "saving"
    MERGING = "merging"
    EXITING = "exiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one kind of move goes."""

    moves: int = 0
    typical_s: float = 0.0  # of one move, over some hundred of them, by the clock
    recent_s: float = 0.0  # the same over the last few
    longest_s: float = 0.0  # in time that counts, among the last GENERATION sightings or fewer
    before_s: float = 0.0  # the same of the GENERATION before
    sightings: int = 0  # in this generation

    @property
    def peak_s(self) -> float:
        """Return the longest move that is remembered."""
        return max(self.longest_s, self.before_s)


Paces = Mapping[Kind, Pace]

GENERATION = 256
"""Sightings after which the older half of the memory goes: one storm must not make the guard blind for ever."""

TYPICAL_MOVES, RECENT_MOVES = 200, 8
SLOW_FACTOR, SLOW_MOVES, SLOW_LEAST_S = 3.0, 20, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How far a kind of move may go beyond what was seen."""

    enough: int  # moves to have seen before anything is concluded
    idle_floor_s: float
    idle_factor: float
    busy_floor_s: float
    busy_factor: float

    def scaled(self, scale: float) -> Patience:
        """Return the same with other floors; for drills that cannot wait."""
        return Patience(
            enough=self.enough, idle_floor_s=self.idle_floor_s * scale, idle_factor=self.idle_factor,
            busy_floor_s=self.busy_floor_s * scale, busy_factor=self.busy_factor,
        )  # fmt: skip


def _patience(enough: int, idle: tuple[float, float], busy: tuple[float, float]) -> Patience:
    return Patience(enough=enough, idle_floor_s=idle[0], idle_factor=idle[1], busy_floor_s=busy[0], busy_factor=busy[1])


Patiences = Mapping[Kind, Patience]

PATIENCE: Patiences = {
    Kind.LOADING: _patience(3, (180, 20), (300, 40)),
    Kind.FIRST: _patience(1, (120, 20), (180, 40)),
    Kind.TRAINING: _patience(5, (10, 20), (60, 50)),
    Kind.EVALUATING: _patience(3, (60, 40), (120, 80)),
    Kind.SAVING: _patience(1, (180, 100), (180, 100)),
    Kind.MERGING: _patience(3, (180, 100), (300, 100)),
    Kind.EXITING: _patience(0, (60, 100), (60, 100)),
}

UNSEEN_EVALUATION = _patience(5, (300, 100), (300, 100))
"""For an evaluation of which no batch was ever timed, as multiples of a training step."""


def scaled(patiences: Patiences, scale: float) -> Patiences:
    """Return patiences with other floors."""
    return {kind: patience.scaled(scale) for kind, patience in patiences.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How long a move may take, and why so long."""

    seconds: float
    basis: str
    is_learnt: bool


def kind_of(phase: Phase | None, *, is_first: bool) -> Kind:
    """Return which kind of move a phase is made of; the first step of an attempt is one of its own."""
    match phase:
        case None | Phase.LOADING:
            return Kind.LOADING
        case Phase.TRAINING:
            return Kind.FIRST if is_first else Kind.TRAINING
        case Phase.EVALUATING:
            return Kind.EVALUATING
        case Phase.SAVING:
            return Kind.SAVING
        case Phase.MERGING:
            return Kind.MERGING
        case Phase.EXITING:
            return Kind.EXITING


def learn(pace: Pace, *, took_s: float, wall_s: float, moves: int) -> Pace:
    """Return a pace that has seen so many moves more: together they took so long, so no single one took longer."""
    moves = max(1, moves)
    each_s, seen = wall_s / moves, pace.moves + moves
    is_full = pace.sightings >= GENERATION
    usual_s = min(each_s, 2 * pace.typical_s) if pace.moves >= SLOW_MOVES else each_s  # a burst does not make it usual
    return Pace(
        moves=seen,
        typical_s=_blend(pace.typical_s, usual_s, moves / min(seen, max(TYPICAL_MOVES, moves))),
        recent_s=_blend(pace.recent_s, each_s, moves / min(seen, max(RECENT_MOVES, moves))),
        longest_s=took_s if is_full else max(pace.longest_s, took_s),
        before_s=pace.longest_s if is_full else pace.before_s,
        sightings=1 if is_full else pace.sightings + 1,
    )


def _blend(old: float, new: float, share: float) -> float:
    return old + (new - old) * share


def limit(kind: Kind, paces: Paces, *, ceiling_s: float, is_busy: bool, stretch: float, patiences: Patiences) -> Limit:
    """Return how long a move of a kind may take, in time that counts."""
    patience, pace, what = patiences[kind], paces.get(kind, Pace()), kind.value
    if kind is Kind.EVALUATING and pace.moves < patience.enough:
        scale = patience.idle_floor_s / PATIENCE[kind].idle_floor_s
        patience, pace, what = UNSEEN_EVALUATION.scaled(scale), paces.get(Kind.TRAINING, Pace()), "training"
    if pace.moves < patience.enough:
        return Limit(seconds=ceiling_s, basis="the ceiling of the settings: too little is known yet", is_learnt=False)
    stretched_s = max(pace.peak_s, max(1.0, stretch) * pace.typical_s)
    floor_s, factor = (
        (patience.busy_floor_s, patience.busy_factor) if is_busy else (patience.idle_floor_s, patience.idle_factor)
    )
    learnt_s = max(floor_s, factor * stretched_s)
    if learnt_s >= ceiling_s:
        return Limit(seconds=ceiling_s, basis="the ceiling of the settings", is_learnt=False)
    seen = (
        f"{pace.moves} moves of {what} seen, the longest {pace.peak_s:.1f} s" if pace.moves else "nothing is left to do"
    )
    return Limit(seconds=learnt_s, basis=seen, is_learnt=True)


def slowness(pace: Pace) -> float | None:
    """Return how many times slower than usual the last moves were, or None where they were not."""
    if pace.moves < SLOW_MOVES or pace.recent_s < SLOW_LEAST_S or pace.recent_s < SLOW_FACTOR * pace.typical_s:
        return None
    return pace.recent_s / pace.typical_s


def subject_of(settings: Mapping[str, object]) -> str:
    """Return what jobs must have in common to be compared: model, method, size of a step, device."""
    train = settings.get("train")
    inner = train if isinstance(train, dict) else {}
    parts = [settings.get(key) for key in ("base_model", "method", "max_length")]
    parts += [inner.get(key) for key in ("batch_size", "gradient_accumulation_steps", "packing", "device", "threads")]
    return "|".join(str(part) for part in parts)
