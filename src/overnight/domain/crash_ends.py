"""How a process ended: exit codes and signals as facts, however a shell, a launcher or a user writes them."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from overnight.domain.attempt import FailureKind

SIGINT, SIGKILL, SIGTERM, SIGHUP, SIGABRT = 2, 9, 15, 1, 6
MEMORY_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS})
TIMED_OUT = 124
"""What timeout(1) leaves with where it had to end the program."""

CANNOT_EXECUTE, NOT_A_COMMAND = 126, 127

_NEGATIVE = frozenset(256 - number for number in (2, 4, 6, 7, 9, 11, 15))
"""What a shell sees where a launcher in Python left with the negative number of its child's signal."""

_SAID = {
    "killed": SIGKILL,
    "terminated": SIGTERM,
    "aborted": SIGABRT,
    "abort": SIGABRT,
    "hangup": SIGHUP,
    "interrupt": SIGINT,
    "segmentation fault": int(signal.SIGSEGV),
    "bus error": int(signal.SIGBUS),
    "illegal instruction": int(signal.SIGILL),
    "floating point exception": int(signal.SIGFPE),
    "quit": int(signal.SIGQUIT),
    "broken pipe": int(signal.SIGPIPE),
}


@dataclass(frozen=True, slots=True)
class End:
    """How a process ended; both None where nobody knows."""

    exit_code: int | None = None
    signal: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything is known of the end."""
        return self.exit_code is not None or self.signal is not None

    @property
    def is_clean(self) -> bool:
        """Whether it left with 0."""
        return self.exit_code == 0 and self.signal is None

    def in_words(self) -> str:
        """Return the end in words, "" where it is not known."""
        if self.signal is not None:
            return f"ended by {signal_name(self.signal)}"
        return f"exit code {self.exit_code}" if self.exit_code is not None else ""


def end_of(exit_code: int | None, signal_number: int | None) -> End:
    """Return the end that an exit status tells: a shell writes a signal as 128 + N, Python as -N."""
    if signal_number is not None:
        return End(exit_code=None, signal=signal_number)
    if exit_code is not None and exit_code < 0:
        return End(signal=-exit_code)
    if exit_code is not None and 128 < exit_code <= 128 + 64:
        return End(exit_code=exit_code, signal=exit_code - 128)
    if exit_code is not None and exit_code in _NEGATIVE:
        return End(exit_code=exit_code, signal=256 - exit_code)
    return End(exit_code=exit_code)


def signal_name(number: int) -> str:
    """Return a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_number(text: str) -> int | None:
    """Return the number of a signal written as SIGKILL, KILL, kill or 9; None where there is none such."""
    word = text.strip().upper()
    if word.isdecimal():
        return int(word) if 1 <= int(word) <= 64 else None
    named = signal.Signals.__members__.get(word if word.startswith("SIG") else f"SIG{word}")
    return int(named) if named is not None else None


_SHELL = re.compile(
    r"(?:^|[:\s])(?:line \d+: +)?(?P<pid>\d{2,8})? *(?P<word>Killed"
    r"|Terminated|Aborted|Hangup|Segmentation fault|Bus error"
    r"|Illegal instruction|Floating point exception|Quit|Interrupt)(?: *\(core dumped\))?(?=\s{2,}|\s*$|: \d+)"
)
_ZSH = re.compile(
    r"^zsh: (?P<word>killed|terminated|abort|hangup|segmentation fault|bus error|illegal hardware instruction)"
)


def shell_signal(text: str) -> int | None:
    """Return the signal that a shell reports a program to have died of, as in "line 3: 2029 Killed   python x.py"."""
    found = _ZSH.match(text) or _SHELL.search(text)
    if found is None:
        return None
    word = found.group("word").lower()
    is_bare = text.strip().lower().startswith(word) and len(text.strip()) < 40
    is_job = re.match(r"^(?:\S*(?:sh|bash|slurm_script|\.sh)\S*: |\[\d+\][+-]? |zsh: |/\S+: )", text) is not None
    return _SAID.get(word) if is_bare or is_job else None


_LAUNCHER = re.compile(
    r"(?:exit ?code|exitcode|return code|returncode|exit status|exit_code)\s*[:=]?\s*\(?-(?P<minus>\d{1,2})\b"
    r"|[Ss]ignal (?P<number>\d{1,2}) \(SIG\w+\) received by PID"
    r"|died with <Signals\.SIG\w+: (?P<died>\d{1,2})>"
    r"|(?:process|rank|[Tt]ask|worker|PID)\b.{0,80}(?:exited on"
    r"|terminated (?:by|with)|killed by|died (?:of|with|from)|got) signal:? (?P<mpi>\d{1,2})\b"
    r"|terminated with signal (?P<mp>SIG\w+)"
    r"|(?:exited|stopped|terminated|finished) with (?:exit )?code:? (?P<shell>129|13\d|14\d|15[0-9])\b"
    r"|(?:srun|slurmstepd): error: .{0,80}: (?P<slurm>Killed|Terminated|Segmentation fault|Bus error|Aborted)"
)


def launcher_signal(text: str) -> int | None:
    """Return the signal that a launcher reports one of its processes to have died of."""
    found = _LAUNCHER.search(text)
    if found is None:
        return None
    groups = found.groupdict()
    if groups["mp"]:
        return signal_number(groups["mp"])
    if groups["slurm"]:
        return _SAID[groups["slurm"].lower()]
    if groups["shell"]:
        return int(groups["shell"]) - 128
    number = next(value for key, value in groups.items() if value and key not in ("mp", "slurm", "shell"))
    return int(number)


def kind_of_signal(number: int) -> FailureKind:
    """Return what it means that a process is told to have died of a signal, where nothing else is known."""
    if number in MEMORY_FAULTS or number == signal.SIGFPE:
        return FailureKind.SEGFAULT
    if number == signal.SIGILL:
        return FailureKind.DEPENDENCY  # built for another processor
    if number == SIGINT:
        return FailureKind.USER_INTERRUPT
    if number == SIGABRT:
        return FailureKind.SEGFAULT  # native code gave up, and left no word
    return FailureKind.HOST_OOM if number == SIGKILL else FailureKind.KILLED_BY_SIGNAL


def kind_of_end(end: End) -> tuple[FailureKind, float]:
    """Return what an exit status alone means, and how sure that is."""
    by_signal = {
        SIGINT: (FailureKind.USER_INTERRUPT, 0.9), SIGKILL: (FailureKind.KILLED_BY_SIGNAL, 0.5),
        11: (FailureKind.SEGFAULT, 0.9), 7: (FailureKind.SEGFAULT, 0.85), 6: (FailureKind.SEGFAULT, 0.4),
        4: (FailureKind.DEPENDENCY, 0.5), 8: (FailureKind.SEGFAULT, 0.5),
    }  # fmt: skip
    if end.signal is not None:
        return by_signal.get(end.signal, (FailureKind.KILLED_BY_SIGNAL, 0.8))
    by_code = {
        TIMED_OUT: (FailureKind.HANG, 0.6), CANNOT_EXECUTE: (FailureKind.PERMISSION, 0.5),
        NOT_A_COMMAND: (FailureKind.DEPENDENCY, 0.6), 2: (FailureKind.CONFIG_ERROR, 0.4),
    }  # fmt: skip
    if end.exit_code is None or end.exit_code == 0:
        return FailureKind.NONE, 0.8
    return by_code.get(end.exit_code, (FailureKind.CODE_ERROR, 0.3))
