"""The loss curve as a picture, with the kill marked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Curve = list[tuple[int, float]]

WINDOW = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the picture shows."""

    title: str
    before: Curve  # (step, loss) of the attempt that was killed
    after: Curve  # of the attempt that resumed
    killed_at: int
    resumed_from: int


def smooth(curve: Curve) -> Curve:
    """Return the centred running mean over WINDOW steps."""
    half = WINDOW // 2
    losses = [loss for _, loss in curve]
    means = []
    for index, (step, _) in enumerate(curve):
        around = losses[max(0, index - half) : index + half + 1]
        means.append((step, sum(around) / len(around)))
    return means


def draw(story: Story, path: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure  # of the extra demo

    figure = Figure(figsize=(9, 4.8), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    parts = (("before the kill", story.before, "#1f6feb"), ("after the resume", story.after, "#d9730d"))
    for label, curve, colour in parts:
        axes.plot(*zip(*curve, strict=True), color=colour, linewidth=0.9, alpha=0.45, marker=".", markersize=3)
        axes.plot(*zip(*smooth(curve), strict=True), color=colour, linewidth=2.2, label=label)
    top = max(loss for _, loss in [*story.before, *story.after])
    axes.axvspan(story.resumed_from, story.killed_at, color="#888888", alpha=0.18, linewidth=0, label="trained twice")
    axes.axvline(story.killed_at, color="#c4314b", linestyle="--", linewidth=1.6)
    axes.annotate(
        f"kill -9 at step {story.killed_at}",
        (story.killed_at, top), (6, -4), textcoords="offset points", va="top", color="#c4314b",
    )  # fmt: skip
    axes.annotate(
        f"resumed from\ncheckpoint {story.resumed_from}",
        (story.resumed_from, top), (-6, -4), textcoords="offset points", va="top", ha="right", color="#555555",
    )  # fmt: skip
    axes.set(title=story.title, xlabel="step", ylabel="loss", ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path)
