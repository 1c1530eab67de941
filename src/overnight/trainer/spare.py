"""A spare trainer: the libraries are loaded, no device is touched, and it forks the trainers that the loop orders.

    python -P -m overnight.trainer.spare WORKSPACE --threads N --base MODEL [--simulated] [--gently]

Orders come as lines on standard input; their end is the end of the spare, so it does not outlive the loop. Answers go
as lines to standard output::

    spare    ready | unfit REASON
    loop     fork "ATTEMPT_DIR"
    spare    forked PID               the new process waits at a gate, and has done nothing yet
    loop     go                       its handle is recorded
    trainer  running                  from the new process itself: it has a session and a log of its own

The new process is forked twice: its parent is gone at once, and the loop, which takes in orphans, becomes its parent.
It reads the gate; where the spare or the loop dies before the word has come, the gate closes and nothing runs. What it
then does is what ``python -m overnight.trainer ATTEMPT_DIR`` does, with the same environment; nothing that the
libraries took from the environment when they were loaded differs (see environment.py).

It is Linux's: elsewhere no spare is started.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import json
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.launchers import processes
from overnight.trainer import environment, faults, title

DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/accel", "/dev/neuron")
GENTLE = 10
"""How far a spare steps back that loads beside a training."""

FIRST_VICTIM = 500
"""Where memory runs out, the spare goes before what trains."""

Main = Callable[[list[str]], int]


class UnfitError(Exception):
    """Nothing may be forked from this process."""


class Spare:
    """One spare trainer."""

    def __init__(self, workspace: Path, *, options: argparse.Namespace) -> None:
        self.workspace = workspace
        self.options = options
        self.scratch = Layout(workspace).state / "spare"  # never made: it stands for the scratch of the trainer to come
        self.lock = files.Lock(Layout(workspace).spare_lock)
        self.before = dict(os.environ)
        self.victim = oom_score()
        self.faults = faults.Faults(os.environ.get(faults.VARIABLE))
        self.run: Main = refuse
        self.taken: list[environment.Taken] = []
        self._heard = b""
        # what libraries print must not be taken for an answer, and what they read must not be an order
        self.ear, self.voice = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in (0, 1))
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)

    def serve(self) -> int:
        """Load, then fork whatever is ordered, until nobody can order any more."""
        try:
            identity = processes.identify(os.getpid())
            if not self.lock.acquire(holder={"pid": os.getpid(), "identity": str(identity)}):
                raise UnfitError("another spare trainer is there")
            set_oom_score(FIRST_VICTIM)
            self.load()
            self.taken = environment.taken_paths(self.scratch)
            require_untouched()
        except Exception as error:  # the spare's border: the loop then takes the cold way
            traceback.print_exc()
            self.say(f"unfit {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            return 1
        gc.collect()
        gc.freeze()  # what is loaded stays shared between the processes
        self.say("ready")
        while (order := self.hear()) is not None:
            word, _, rest = order.partition(" ")
            if word == "fork":
                self.faults.reach("spare_order")
                self.fork(Path(json.loads(rest)))
        return 0

    def load(self) -> None:
        """Import what a trainer needs, with the environment that it will have."""
        self.faults.reach("spare_load")
        if self.options.simulated:
            from overnight.trainer import simulated

            self.run = lambda arguments: simulated.main(Path(arguments[0]))
            return
        settings = environment.variables(
            threads=self.options.threads, base_model=self.options.base, workspace=self.workspace, scratch=self.scratch
        )
        os.environ.update({**settings, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"})
        if not self.options.gently:
            self.run = load_libraries(self.options.base)
            return
        found: list[Main | BaseException] = []
        thread = threading.Thread(target=lambda: found.append(load_gently(self.options.base)))
        thread.start()  # a process cannot take a step back undone; a thread that is over need not
        thread.join()
        if isinstance(found[0], BaseException):
            raise UnfitError(f"{type(found[0]).__name__}: {found[0]}") from found[0]
        self.run = found[0]

    def fork(self, folder: Path) -> None:
        """Fork a trainer behind a gate, and pass the loop's word on to it."""
        try:
            log = os.open(folder / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                pid, gate = self.fork_twice(folder, log)
            finally:
                os.close(log)
        except (OSError, ValueError) as error:
            self.say(f"failed {error}")
            return
        with contextlib.closing(os.fdopen(gate, "wb", buffering=0)) as word:
            self.faults.reach("spare_forked")
            self.say(f"forked {pid}")
            if self.hear() == "go":
                self.faults.reach("spare_go")
                with contextlib.suppress(BrokenPipeError):  # somebody killed it already
                    word.write(b"go\n")

    def fork_twice(self, folder: Path, log: int) -> tuple[int, int]:
        """Return the new process and the gate that it waits at."""
        reading, gate = os.pipe()
        hearing, telling = os.pipe()
        middle = fork()
        if middle == 0:
            try:
                os.close(gate)
                os.close(hearing)
                pid = fork()
                if pid == 0:
                    os.close(telling)
                    self.become_trainer(folder, reading, log)
                os.write(telling, b"%d\n" % pid)
            finally:
                os._exit(0)
        os.close(reading)
        os.close(telling)
        os.waitpid(middle, 0)
        with os.fdopen(hearing, "rb") as answer:
            return int(answer.read()), gate

    def become_trainer(self, folder: Path, gate: int, log: int) -> NoReturn:
        """Be, in the forked process, what one started anew would be."""
        code = 1
        try:
            os.close(self.ear)
            self.lock.release()
            if os.read(gate, 8) != b"go\n":
                os._exit(0)
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.workspace)
            set_oom_score(self.victim)
            self.bring_up_to_date(folder)
            title.rename([sys.executable, "-P", "-m", "overnight.trainer", str(folder)])
            os.write(self.voice, b"running\n")
            for descriptor in (self.voice, gate, log):
                os.close(descriptor)
            code = self.run([str(folder)])
        except BaseException:  # the border of the process, which must not go back into the spare's own work
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def bring_up_to_date(self, folder: Path) -> None:
        """Undo what belongs to the spare: variables, and what libraries took from them."""
        environment.move_paths(self.taken, folder / "output")
        os.environ.clear()
        os.environ.update(self.before)
        tempfile.tempdir = None
        sys.argv = [str(Path(environment.__file__).with_name("__main__.py")), str(folder)]

    def say(self, answer: str) -> None:
        """Tell the loop something; where it is gone, the next order tells that."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.voice, f"{answer}\n".encode("utf-8", "backslashreplace"))

    def hear(self) -> str | None:
        """Return the next order, or None where none can come any more."""
        while b"\n" not in self._heard:
            more = os.read(self.ear, 65536)
            if not more:
                return None
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()


def refuse(arguments: list[str]) -> int:
    """Stand in the place of a main program that is not loaded yet."""
    raise UnfitError("nothing is loaded")


def load_gently(base_model: str) -> Main | BaseException:
    """Load in a thread that lets others go first; return what it found or what went wrong."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), GENTLE)
        return load_libraries(base_model)
    except BaseException as error:
        return error


def load_libraries(base_model: str) -> Main:
    """Import what a job imports, also what the libraries put off until it is used; return a trainer's main."""
    from overnight.trainer import __main__ as entry
    from overnight.trainer import ahead

    ahead.load(base_model)
    return entry.main


def require_untouched() -> None:
    """Raise UnfitError where a process forked from this one would inherit a device or half a thread."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        raise UnfitError(f"the libraries left threads behind: {', '.join(threads)}")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise UnfitError("the libraries have opened a GPU")
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(DEVICES):
                raise UnfitError(f"the libraries have opened {target}")


def fork() -> int:
    """Fork; Python's warning is about threads, of which there are none here but sleeping ones of native libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def oom_score() -> int:
    """Return how early the kernel would end this process where memory runs out."""
    try:
        return int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, ValueError):
        return 0


def set_oom_score(value: int) -> None:
    """Say how early the kernel is to end this process; never below what it was born with."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(f"{value}\n")


def main(arguments: list[str]) -> int:
    """Serve one loop; return the exit code."""
    parser = argparse.ArgumentParser(prog="overnight.trainer.spare", description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--key", help="what it was started for; only shown")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--gently", action="store_true")
    options = parser.parse_args(arguments)
    return Spare(options.workspace.absolute(), options=options).serve()


if __name__ == "__main__":
    _code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)
