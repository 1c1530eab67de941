"""What status prints: the picture, one fact a line, in colours where they are wanted."""

from __future__ import annotations

from overnight.cli import output
from overnight.domain.picture import State
from overnight.domain.printable import shown
from overnight.status import Snapshot, words

NAME_WIDTH = 11
COLORS = {
    State.DEAD: output.RED,
    State.PAUSED: output.YELLOW,
    State.STOPPED: output.YELLOW,
    State.STOPPING: output.YELLOW,
    State.WAITING: output.YELLOW,
    State.IDLE: output.DIM,
}


def lines(shot: Snapshot) -> str:
    """Return the whole picture."""
    state = output.colored(shot.state.value.ljust(NAME_WIDTH), COLORS.get(shot.state, output.GREEN))
    told = [state + shown(words.headline(shot))]
    told += [_line(name, text) for name, text in words.facts(shot) if text]
    return "\n".join(told)


def _line(name: str, text: str) -> str:
    return output.colored(name.ljust(NAME_WIDTH), output.DIM) + shown(text)
