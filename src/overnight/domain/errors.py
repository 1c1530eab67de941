"""The errors a user can meet, as one tree, each with its exit code.

::

    OvernightError
    ├── UsageError      2   wrong usage: an argument, a folder that is no workspace
    ├── DataError      65   a data file or row that cannot be trained
    ├── NotRunningError 69  the daemon should run and does not
    ├── DiskError      73   cannot write: full, read-only, no inodes
    ├── BusyError      75   refused now because something is active or locked
    ├── ConfigError    78   the settings are refused
    │   └── LockedError     a setting that may not change while checkpoints exist
    └── FailedError     1   a check found a problem, or a job failed

A message always says four things: what happened, what was found, what was expected, what to do.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller (sysexits where one fits)."""

    OK = 0
    PROBLEM = 1
    USAGE = 2
    BAD_DATA = 65
    NOT_RUNNING = 69
    CANNOT_WRITE = 73
    BUSY = 75
    BAD_CONFIG = 78


class OvernightError(Exception):
    """An error fit for the user: what, found, expected, fix."""

    exit_code: ExitCode = ExitCode.PROBLEM

    def __init__(
        self,
        what: str,
        *,
        found: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.found = found
        self.expected = expected
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        lines = [self.what]
        if self.found is not None:
            lines.append(f"  Found:    {self.found}")
        if self.expected is not None:
            lines.append(f"  Expected: {self.expected}")
        if self.fix is not None:
            lines.append(f"  To do:    {self.fix}")
        return "\n".join(lines)


class UsageError(OvernightError):
    """Wrong usage: an argument, or a folder that is no workspace."""

    exit_code = ExitCode.USAGE


class DataError(OvernightError):
    """A data file or row that cannot be trained."""

    exit_code = ExitCode.BAD_DATA


class NotRunningError(OvernightError):
    """The daemon should run and does not."""

    exit_code = ExitCode.NOT_RUNNING


class DiskError(OvernightError):
    """Cannot write: the disk is full, read-only, or out of inodes."""

    exit_code = ExitCode.CANNOT_WRITE


class BusyError(OvernightError):
    """Refused now because something is active or locked; try later."""

    exit_code = ExitCode.BUSY


class ConfigError(OvernightError):
    """The settings are refused."""

    exit_code = ExitCode.BAD_CONFIG


class LockedError(ConfigError):
    """A setting may not change while checkpoints exist: ``found`` is the current value, ``expected`` the locked one."""

    def __init__(self, what: str, *, found: str | None, expected: str | None, why: str, fix: str | None, code: str):
        super().__init__(what, found=found, expected=expected, fix=fix, code=code)
        self.why = why

    def __str__(self) -> str:
        return (
            f"{self.what}\n  Current:  {self.found}\n  Locked:   {self.expected}\n  Why:      {self.why}\n"
            f"  To do:    {self.fix}"
        )


class FailedError(OvernightError):
    """A check found a problem, or a job failed."""

    exit_code = ExitCode.PROBLEM
