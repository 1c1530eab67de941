"""Long reading beside the loop: a tick asks, goes on, and finds the answer in a later tick.

Only reading: what is in flight when the process dies is simply asked again by the next loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from overnight.domain.errors import BusyError

Answer = TypeVar("Answer")


class Done(Generic[Answer]):
    """An answer that has come."""

    def __init__(self, value: Answer) -> None:
        self.value = value


class Errands:
    """Questions under way, each with a name; ``wake`` is called from their threads when an answer is there."""

    def __init__(self, *, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._threads: dict[str, threading.Thread] = {}
        self._answers: dict[str, Done[Any] | Exception] = {}
        self._unwanted: set[str] = set()

    def ask(self, name: str, work: Callable[[], Answer]) -> Done[Answer] | None:
        """Return the answer, once, or None while it is worked out. Raises what the work raised."""
        answer = self._answers.pop(name, None)
        if answer is not None:
            self._threads.pop(name).join()
            if name not in self._unwanted:
                if isinstance(answer, Exception):
                    raise answer
                return answer
            self._unwanted.remove(name)
        if name not in self._threads:
            self._begin(name, work)
        return None

    def _begin(self, name: str, work: Callable[[], Any]) -> None:
        thread = threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # it is asked again in the next tick
            raise BusyError(
                "The daemon cannot start a thread now",
                found=str(error),
                expected="a thread for long reading",
                fix="too many processes and threads for this user: end some, or raise ulimit -u (TasksMax of a"
                " service); it is tried again by itself",
            ) from error
        self._threads[name] = thread

    def forget(self, name: str) -> None:
        """Throw an answer away, also one that is still to come: the world has changed since it was asked."""
        if name in self._threads:
            self._unwanted.add(name)

    def _run(self, name: str, work: Callable[[], Any]) -> None:
        try:
            answer: Done[Any] | Exception = Done(work())
        except Exception as error:  # it is raised again where it was asked
            answer = error
        self._answers[name] = answer
        self._wake()
