"""Starting trainers, finding them again, ending them: with real processes."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.launchers import local
from overnight.launchers.base import Exited, Launcher, LaunchError, Running
from overnight.launchers.local import Local

PROGRAMS = {
    "sleeper": "import time\nprint('here', flush=True)\ntime.sleep(60)",
    "quick": "import sys\nsys.exit(3)",
    "facts": (
        "import os, sys\nprint(os.getcwd(), os.getsid(0) == os.getpid(), os.environ['PYTHONHASHSEED'],"
        " 'RANK' in os.environ, sys.stdin.read() == '', sys.argv[1], flush=True)"
    ),
    "deaf": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)",
}


class Planted(Local):
    """Starts a program of the test in the place of the trainer."""

    prefix = "local"

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Planted]:
    for name, text in PROGRAMS.items():
        (tmp_path / f"planted_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "attempt").mkdir()
    return lambda name: Planted(f"planted_{name}")


def ended(launcher: Launcher, handle: str, *, timeout: float = 10) -> Exited:
    deadline = time.monotonic() + timeout
    while not isinstance(found := launcher.poll(handle), Exited):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def output(tmp_path: Path, *, timeout: float = 10) -> str:
    deadline = time.monotonic() + timeout
    while not (text := (tmp_path / "attempt" / "trainer.log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return text


def start(launcher: Launcher, tmp_path: Path) -> str:
    recorded: list[str] = []
    handle = launcher.start(tmp_path / "attempt", workspace=tmp_path, record=recorded.append)
    assert recorded == [handle]
    return handle


def test_a_trainer_leads_its_own_session_with_a_clean_environment(
    make: Callable[[str], Planted], tmp_path: Path
) -> None:
    launcher = make("facts")
    handle = start(launcher, tmp_path)
    assert ended(launcher, handle) == Exited(exit_code=0, signal=None)
    assert output(tmp_path).split() == [
        str(tmp_path), "True", "0", "False", "True", str(tmp_path / "attempt")
    ]  # fmt: skip


def test_the_exit_code_of_our_own_child_is_known_and_stays_known(
    make: Callable[[str], Planted], tmp_path: Path
) -> None:
    launcher = make("quick")
    handle = start(launcher, tmp_path)
    assert ended(launcher, handle) == Exited(exit_code=3, signal=None)
    assert launcher.poll(handle) == Exited(exit_code=3, signal=None)


def test_a_signal_is_told_as_that_signal(make: Callable[[str], Planted], tmp_path: Path) -> None:
    launcher = make("sleeper")
    handle = start(launcher, tmp_path)
    output(tmp_path)
    launcher.stop(handle)
    assert ended(launcher, handle) == Exited(exit_code=None, signal=signal.SIGTERM)


def test_what_ignores_the_first_signal_is_killed_by_the_second(make: Callable[[str], Planted], tmp_path: Path) -> None:
    launcher = make("deaf")
    handle = start(launcher, tmp_path)
    output(tmp_path)
    launcher.stop(handle)
    assert isinstance(launcher.poll(handle), Running)
    launcher.kill(handle)
    assert ended(launcher, handle) == Exited(exit_code=None, signal=signal.SIGKILL)


def test_a_trainer_is_adopted_by_a_launcher_that_did_not_start_it(
    make: Callable[[str], Planted], tmp_path: Path
) -> None:
    first, second = make("sleeper"), make("sleeper")
    handle = start(first, tmp_path)
    output(tmp_path)
    found = second.poll(handle)
    assert isinstance(found, Running)
    assert not found.is_ours
    second.kill(handle)
    assert ended(second, handle) == Exited(exit_code=None, signal=None)
    ended(first, handle)


def test_the_end_is_seen_at_once_through_the_descriptor(make: Callable[[str], Planted], tmp_path: Path) -> None:
    launcher = make("sleeper")
    handle = start(launcher, tmp_path)
    output(tmp_path)
    descriptor = launcher.exit_descriptor(handle)
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0)[0] == []
    launcher.kill(handle)
    assert select.select([descriptor], [], [], 60)[0] == [descriptor]
    assert isinstance(launcher.poll(handle), Exited)
    assert launcher.exit_descriptor(handle) is None


def test_a_trainer_whose_handle_could_not_be_recorded_never_runs(
    make: Callable[[str], Planted], tmp_path: Path
) -> None:
    def refuse(handle: str) -> None:
        raise OSError("the database is full")

    launcher = make("facts")
    with pytest.raises(OSError, match="full"):
        launcher.start(tmp_path / "attempt", workspace=tmp_path, record=refuse)
    time.sleep(0.2)
    assert (tmp_path / "attempt" / "trainer.log").read_text() == ""


@pytest.mark.crash
def test_a_trainer_whose_daemon_died_before_recording_it_never_runs(tmp_path: Path) -> None:
    (tmp_path / "attempt").mkdir()
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom overnight.launchers.local import Local\n"
        "class Planted(Local):\n    module = 'this'\n"
        f"Planted().start(Path({str(tmp_path / 'attempt')!r}), workspace=Path({str(tmp_path)!r}),"
        " record=lambda handle: os.kill(os.getpid(), 9))\n"
    )
    child = os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", script)
    assert child == -signal.SIGKILL
    time.sleep(0.3)
    assert (tmp_path / "attempt" / "trainer.log").read_text() == ""


def test_a_module_beside_the_workspace_is_not_taken_for_ours(make: Callable[[str], Planted], tmp_path: Path) -> None:
    """The current folder is not searched: a random.py in a workspace must not break the trainer."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "random.py").write_text("raise SystemExit(9)")
    (tmp_path / "planted_random.py").write_text("import random")
    launcher = make("random")
    handle = launcher.start(tmp_path / "attempt", workspace=tmp_path / "work", record=lambda handle: None)
    assert ended(launcher, handle) == Exited(exit_code=0, signal=None)


@pytest.mark.parametrize("missing", ["interpreter", "workspace"])
def test_what_cannot_be_started_is_a_typed_refusal(
    make: Callable[[str], Planted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "interpreter":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "gone" / "python"))
    with pytest.raises(LaunchError) as caught:
        make("quick").start(
            tmp_path / "attempt", workspace=tmp_path / "gone" if missing == "workspace" else tmp_path,
            record=lambda handle: None,
        )  # fmt: skip
    assert caught.value.code == "ENOENT"
    assert "ENOENT" in str(caught.value.found)


def test_the_system_s_refusal_of_a_new_process_names_the_remedy() -> None:
    error = local.launch_error(OSError(11, "Resource temporarily unavailable"), what="The trainer")
    assert error.code == "EAGAIN"
    assert "ulimit -u" in str(error.fix)


@pytest.mark.parametrize("handle", ["", "local:", "local:1:x:y", "ray:17", "local:999999999:1:boot"])
def test_a_handle_of_nobody_is_gone_and_signals_nobody(handle: str) -> None:
    launcher = Local()
    launcher.stop(handle)
    launcher.kill(handle)
    assert launcher.poll(handle) == Exited(exit_code=None, signal=None)
