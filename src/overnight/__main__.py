"""THE entry, ``overnight`` and ``python -m overnight``. Who gives way to a training does so before loading anything."""

from __future__ import annotations

import os
import sys

from overnight.launchers.aside import step_aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

LOOKING = frozenset(
    {"status", "logs", "events", "doctor", "add", "validate", "queue", "checkpoints", "verify", "crashes"}
)
"""Verbs that are in no hurry beside a training: they start nothing that lives on, and give way to it."""

SPARING = {"OPENBLAS_NUM_THREADS": "1", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""For these verbs: numpy starts no threads to multiply matrices with, pydantic looks for plugins in no package."""


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code."""
    words = sys.argv[1:]
    if verb(words) in LOOKING:
        step_aside()
        for name, value in SPARING.items():
            os.environ.setdefault(name, value)
    from overnight import cli

    cli.main(words)


def verb(words: Sequence[str]) -> str | None:
    """Return the verb of a command line: the first word that is neither an option nor the workspace's value."""
    is_value = False
    for word in words:
        if not is_value and not word.startswith("-"):
            return word
        is_value = not is_value and word in ("-C", "--workspace")
    return None


if __name__ == "__main__":
    main()
