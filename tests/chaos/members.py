"""Who belongs to a workspace, by what the kernel says: command lines, sessions, kernel locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

ROLES = {
    "overnight.daemon.watchdog": "watchdog",
    "overnight.daemon": "loop",
    "overnight.daemon.admission": "admission",
    "overnight.trainer": "trainer",
    "overnight.trainer.simulated": "trainer",
    "overnight.trainer.spare": "spare",
}
"""Which module is run by whom."""

GUARDS = ("watchdog", "loop")


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One process: its number and its start time, so that a stranger with the same number is never hit."""

    role: str
    pid: int
    started: int
    session: int
    attempt: str = ""

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started

    def send(self, number: int) -> bool:
        """Send a signal to that very process; return whether it was there."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(descriptor, signal.Signals(number))
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def is_alive(self) -> bool:
        facts = facts_of(self.pid)
        return facts is not None and facts[0] not in "ZX" and facts[2] == self.started


def facts_of(pid: int) -> tuple[str, int, int] | None:
    """Return state, session and start time of a process, None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode("ascii", "replace")
    except OSError:
        return None
    fields = text[text.rfind(")") + 2 :].split()
    return (fields[0], int(fields[3]), int(fields[19])) if len(fields) > 19 else None


def lock_pid(path: Path) -> int | None:
    """Return who holds a lock of the product, as its text says, None where the kernel knows no holder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            told = json.loads(os.pread(descriptor, 4096, 0)).get("pid")
        except (ValueError, AttributeError):
            return -1
        return told if isinstance(told, int) else -1
    else:
        return None
    finally:
        os.close(descriptor)


def members(root: Path) -> list[Member]:
    """Return every living process of a workspace, the trainer told from its spare by the lock that it holds."""
    found: list[Member] = []
    place = os.fsencode(str(root))
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if not any(word == place or word.startswith(place + b"/") for word in words):
            continue
        facts = facts_of(int(name))
        if facts is None or facts[0] in "ZX":
            continue
        role, attempt = _role(words)
        if role:
            found.append(Member(role=role, pid=int(name), started=facts[2], session=facts[1], attempt=attempt))
    holder = lock_pid(root / ".overnight" / "model.lock")
    return sorted(_as_trainer(member, root) if member.pid == holder else member for member in found)


def _as_trainer(member: Member, root: Path) -> Member:
    """A trainer forked from the spare has the spare's command line; the lock on the model tells."""
    attempt = member.attempt
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((root / ".overnight" / "model.lock").read_bytes())
        attempt = told.get("attempt", attempt) if told.get("pid") == member.pid else attempt
    return Member(role="trainer", pid=member.pid, started=member.started, session=member.session, attempt=attempt)


def _role(words: list[bytes]) -> tuple[str, str]:
    """Return what a command line runs: a module of ours with -m, or a trainer still behind its gate."""
    texts = [word.decode("utf-8", "replace") for word in words if word]
    module = texts[texts.index("-m") + 1] if "-m" in texts[:-1] else ""
    role = ROLES.get(module, "")
    if role == "trainer":
        attempt = Path(texts[-1]).name
        return ("gate" if "overnight-trainer" in texts else "trainer"), attempt
    return role, ""


def guards(root: Path) -> set[int]:
    """Return who holds the locks of watchdog and loop: two numbers where both are there."""
    held = {lock_pid(root / ".overnight" / name) for name in ("watchdog.lock", "daemon.lock")}
    return {pid for pid in held if pid is not None and (facts := facts_of(pid)) is not None and facts[0] not in "ZX"}


def guards_complete(root: Path) -> bool:
    """Return whether watchdog and loop hold their locks."""
    return len(guards(root)) == 2


def strays(root: Path, sessions: set[tuple[int, int]]) -> list[str]:
    """Return every living process that still has to do with a workspace: by words, folder, open files, session."""
    found: list[str] = []
    place = str(root)
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (os.getpid(), os.getppid()):
            continue
        facts = facts_of(int(name))
        if facts is None or facts[0] in "ZX":
            continue
        why = _why_stray(Path("/proc") / name, place, facts, sessions)
        if why:
            words = _quietly(lambda name=name: Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            found.append(f"pid {name} ({why}): {words[:200]}")
    return found


def _why_stray(process: Path, place: str, facts: tuple[str, int, int], sessions: set[tuple[int, int]]) -> str:
    words = _quietly(lambda: (process / "cmdline").read_bytes().decode("utf-8", "replace"))
    if any(word == place or word.startswith(place + "/") for word in words.split("\0")):
        return "its command line"
    if _quietly(lambda: os.readlink(process / "cwd")).startswith(place):
        return "its folder"
    with contextlib.suppress(OSError):
        for entry in os.listdir(process / "fd"):
            target = _quietly(lambda entry=entry: os.readlink(process / "fd" / entry))
            if target == place or target.startswith(place + "/"):
                return f"it has {target} open"
    leader = facts_of(facts[1])
    if any(session == facts[1] and (leader is None or leader[2] == started) for session, started in sessions):
        return f"it is in the session of the former member {facts[1]}"
    return ""


def _quietly(read: object) -> str:
    try:
        return str(read())  # type: ignore[operator]
    except OSError:
        return ""
