"""The spare trainer and its loop, line by line: with real processes, real signals and simulated trainers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.disk import attempts, files
from overnight.disk.layout import Layout
from overnight.domain.attempt import Phase, Spec
from overnight.domain.spare import State
from overnight.launchers import orphans, processes
from overnight.launchers import spare as spares
from overnight.launchers.base import Exited, Running
from overnight.launchers.simulated import Simulated
from overnight.launchers.spare import Need, Spare

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a spare trainer is Linux's")

ROWS = b'{"text": "a row"}\n' * 400


class Bench:
    """A workspace without a loop: the test is the loop."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        for folder in self.layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        self.launcher = Simulated()
        self.spares: list[Spare] = []
        self.handles: list[str] = []
        self.count = 0

    def spare(self, *, ground: str = "here") -> Spare:
        need = Need(kind="simulated", threads=1, base_model="none", ground=ground)
        self.spares.append(Spare(self.layout, need, gently=False))
        return self.spares[-1]

    def ready(self, **changes: Any) -> Spare:
        spare = self.spare(**changes)
        wait(lambda: spare.look() is not State.LOADING)
        assert spare.state is State.READY, self.layout.spare_log.read_text()
        return spare

    def attempt(self) -> Path:
        """Make the folder of an attempt of four hundred steps."""
        self.count += 1
        folder = self.layout.attempt(f"000001-{self.count:02}")
        folder.mkdir()
        rows = self.layout.state / "rows.jsonl"
        rows.write_bytes(ROWS)
        settings = {
            "model_name": "m", "base_model": "none", "max_length": 8, "method": "lora", "seed": 1, "lora": {},
            "train": {"batch_size": 1, "gradient_accumulation_steps": 1, "epochs": 1, "learning_rate": 0.1},
            "checkpoint": {"every_steps": 1000},
        }  # fmt: skip
        attempts.write_spec(
            folder,
            Spec(
                kind="fit", attempt=folder.name, job=1, workspace=str(self.layout.root), dataset=str(rows),
                dataset_id=hashlib.sha256(ROWS).hexdigest(), settings=settings, base_model="none",
                base_fingerprint=None, start_step=0, checkpoint=None, mode="fresh", seed=1, threads=1, created_at=0.0,
            ),
        )  # fmt: skip
        attempts.touch_watched(folder)
        return folder

    def fork(self, spare: Spare, folder: Path) -> str | None:
        handle = spare.fork(folder, record=self.handles.append, prefix="simulated")
        if handle is not None:
            assert self.handles[-1] == handle
            self.launcher.adopt(handle)
        return handle

    def ended(self, handle: str) -> Exited:
        wait(lambda: isinstance(self.launcher.poll(handle), Exited))
        found = self.launcher.poll(handle)
        assert isinstance(found, Exited)
        return found

    def living(self) -> list[int]:
        """Return every living process that names this workspace."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            pid = int(path.parent.name)
            try:
                named = str(self.layout.root).encode() in path.read_bytes()
            except OSError:
                continue
            if named and pid != os.getpid() and processes.identify(pid) is not None:
                found.append(pid)
        return found

    def end(self) -> None:
        for spare in self.spares:
            if spare.pid in self.living():
                os.kill(spare.pid, signal.SIGCONT)
            spare.end()
        for handle in self.handles:
            self.launcher.kill(handle)
            self.ended(handle)
        wait(lambda: self.living() == [])


def wait(condition: Callable[[], Any], *, timeout: float = 30) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)
    return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("OVERNIGHT_SIMULATED", "step_s=0.05")
    assert spares.is_possible()
    made = Bench(tmp_path / "workspace")
    yield made
    made.end()
    orphans.take_in(wanted=False)
    orphans.reap_members([spare.pid for spare in made.spares] + [int(h.split(":")[1]) for h in made.handles])


def test_a_forked_trainer_is_our_child_and_looks_like_one_started_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    spare, folder = bench.ready(), bench.attempt()
    forked = bench.fork(spare, folder)
    assert forked is not None
    pid = int(forked.split(":")[1])
    beat = wait(lambda: attempts.read_heartbeat(folder))
    assert beat.pid == pid
    assert bench.launcher.poll(forked) == Running(pid=pid, is_ours=True)
    wait(lambda: is_training(folder))
    forked_facts = facts_of(pid)
    bench.launcher.kill(forked)
    bench.ended(forked)

    other = bench.attempt()
    anew = bench.launcher.start(other, workspace=bench.layout.root, record=bench.handles.append)
    wait(lambda: is_training(other))
    expected = facts_of(int(anew.split(":")[1]))
    assert set(forked_facts["environment"]) ^ set(expected["environment"]) == set()
    assert {**forked_facts, "command": "", "log": ""} == {**expected, "command": "", "log": ""}
    assert forked_facts["command"] == [sys.executable, "-P", "-m", "overnight.trainer", str(folder)]
    assert forked_facts["log"] == str(folder / "trainer.log")
    assert spare.look() is State.READY


def is_training(folder: Path) -> bool:
    beat = attempts.read_heartbeat(folder)
    return beat is not None and beat.phase is Phase.TRAINING and beat.step > 0


def descriptors_of(place: Path) -> dict[int, str]:
    """Return what each file descriptor of a process is, seen a moment after the last look."""
    time.sleep(0.01)
    found: dict[int, str] = {}
    for path in (place / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[int(path.name)] = os.readlink(path)
    return found


def facts_of(pid: int) -> dict[str, Any]:
    """Return what the kernel says of a process."""
    place = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    looks = [descriptors_of(place) for _ in range(20)]
    descriptors = looks[-1]
    kept = set.intersection(
        *(set(look.items()) for look in looks)
    )  # what it only reads or writes just now is passed over
    return {
        "command": (place / "cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "environment": sorted((place / "environ").read_bytes().split(b"\0")),
        "folder": os.readlink(place / "cwd"),
        "umask": status["Umask"],
        "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
        "oom": (place / "oom_score_adj").read_text(),
        "niceness": os.getpriority(os.PRIO_PROCESS, pid),
        "leads": os.getsid(pid) == pid,
        "input": descriptors[0],
        "log": descriptors[1] if descriptors[1] == descriptors[2] else "two",
        "others": sorted(target for number, target in kept if number > 2),
        "limits": (place / "limits").read_text(),
    }


def test_how_a_forked_trainer_ends_is_a_fact_from_the_kernel(bench: Bench) -> None:
    spare = bench.ready()
    killed = bench.fork(spare, bench.attempt())
    assert killed is not None
    os.kill(int(killed.split(":")[1]), signal.SIGKILL)
    assert bench.ended(killed) == Exited(exit_code=None, signal=signal.SIGKILL)
    broken = bench.attempt()
    (broken / "spec.json").write_text("{}")
    failed = bench.fork(spare, broken)
    assert failed is not None
    assert bench.ended(failed) == Exited(exit_code=1, signal=None)
    assert "ValueError" in (broken / "trainer.log").read_text()
    assert bench.launcher.poll(failed) == Exited(exit_code=1, signal=None)
    assert spare.look() is State.READY


@pytest.mark.crash
@pytest.mark.parametrize("blow", ["SIGKILL", "SIGSTOP"])
def test_a_spare_that_was_hit_while_it_waits_costs_nothing_but_the_cold_way(bench: Bench, blow: str) -> None:
    spare, folder = bench.ready(), bench.attempt()
    os.kill(spare.pid, signal.Signals[blow])
    began = time.monotonic()
    assert bench.fork(spare, folder) is None
    assert time.monotonic() - began < spares.HANDSHAKE_S + spares.END_S + 5
    assert spare.look() is State.OVER
    assert bench.living() == []
    anew = bench.launcher.start(folder, workspace=bench.layout.root, record=bench.handles.append)
    wait(lambda: attempts.read_heartbeat(folder))
    assert len(bench.living()) == 1
    bench.launcher.kill(anew)
    bench.ended(anew)


@pytest.mark.crash
@pytest.mark.parametrize("action", ["kill", "stop", "sleep"])
@pytest.mark.parametrize("site", ["spare_order", "spare_forked", "spare_go"])
def test_whatever_befalls_the_spare_in_the_handshake_nothing_runs_and_nothing_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, site: str, action: str
) -> None:
    monkeypatch.setattr(spares, "HANDSHAKE_S", 1.0)
    monkeypatch.setenv("OVERNIGHT_FAULT", f"{site}:1:{action}")
    spare, folder = bench.ready(), bench.attempt()
    assert bench.fork(spare, folder) is None
    assert len(bench.handles) == (0 if site == "spare_order" else len(bench.handles))
    assert bench.living() == []
    assert (folder / "trainer.log").read_text() == "" if site != "spare_order" else True
    assert not (folder / "heartbeat.json").exists()
    assert files.lock_holder(bench.layout.spare_lock) is None


@pytest.mark.crash
def test_a_trainer_killed_at_the_gate_costs_nothing_but_the_cold_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare, folder = bench.ready(), bench.attempt()
    kill = lambda handle: os.kill(int(handle.split(":")[1]), signal.SIGKILL)  # noqa: E731
    assert spare.fork(folder, record=kill, prefix="simulated") is None
    assert not (folder / "heartbeat.json").exists()
    assert bench.living() == []


def test_a_trainer_whose_handle_could_not_be_recorded_never_runs_and_the_spare_serves_on(bench: Bench) -> None:
    def refuse(handle: str) -> None:
        raise OSError("the database is full")

    spare, folder = bench.ready(), bench.attempt()
    with pytest.raises(OSError, match="full"):
        spare.fork(folder, record=refuse, prefix="simulated")
    assert bench.living() == [spare.pid]
    assert not (folder / "heartbeat.json").exists()
    assert bench.fork(spare, folder) is not None


@pytest.mark.crash
@pytest.mark.parametrize("stopped", [False, True], ids=["", "with the spare stopped"])
def test_a_loop_that_dies_between_fork_and_word_leaves_nobody_running(bench: Bench, stopped: bool) -> None:
    folder = bench.attempt()
    script = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from overnight.disk.layout import Layout\nfrom overnight.domain.spare import State\n"
        "from overnight.launchers import spare as spares\n"
        "layout = Layout(Path(sys.argv[1]))\nassert spares.is_possible()\n"
        "need = spares.Need(kind='simulated', threads=1, base_model='', ground='')\n"
        "spare = spares.Spare(layout, need, gently=False)\n"
        "while spare.look() is State.LOADING: time.sleep(0.01)\n"
        "def die(handle):\n"
        f"    if {stopped}: os.kill(spare.pid, 19)\n"
        "    print(handle, flush=True)\n    os.kill(os.getpid(), 9)\n"
        "spare.fork(Path(sys.argv[2]), record=die, prefix='simulated')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bench.layout.root), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    if stopped:  # what cannot end by itself is found by its lock
        holder = files.lock_holder(bench.layout.spare_lock)
        assert holder is not None
        spares.end_leftover(holder)
    wait(lambda: bench.living() == [])
    assert not (folder / "heartbeat.json").exists()
    assert (folder / "trainer.log").read_text() == ""


@pytest.mark.crash
def test_a_forked_trainer_survives_the_spare_and_holds_nothing_of_it(bench: Bench) -> None:
    spare, folder = bench.ready(), bench.attempt()
    handle = bench.fork(spare, folder)
    assert handle is not None
    assert spare.end()
    assert files.lock_holder(bench.layout.spare_lock) is None
    before = wait(lambda: attempts.read_heartbeat(folder)).step
    wait(lambda: (beat := attempts.read_heartbeat(folder)) is not None and beat.step > before)
    assert isinstance(bench.launcher.poll(handle), Running)


def test_a_second_spare_is_unfit_while_the_first_is_there(bench: Bench) -> None:
    bench.ready()
    second = bench.spare()
    wait(lambda: second.look() is State.OVER)
    assert "another spare trainer is there" in second.why


@pytest.mark.crash
def test_a_spare_that_dies_while_it_loads_is_over_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_FAULT", "spare_load:1:kill")
    spare = bench.spare()
    wait(lambda: spare.look() is State.OVER)
    assert bench.living() == []


def test_what_is_loaded_is_told_apart_by_libraries_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    (library / "torch-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(library)])
    before = spares.ground()
    assert spares.ground() == before
    (library / "torch-1.0.dist-info").rename(library / "torch-1.1.dist-info")
    replaced = spares.ground()
    assert replaced != before
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert spares.ground() != replaced


def test_an_ended_orphan_of_a_session_of_ours_is_buried_and_no_other_child_is(bench: Bench) -> None:
    spare = bench.ready()
    handle = bench.fork(spare, bench.attempt())
    assert handle is not None
    leader = int(handle.split(":")[1])
    stranger = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    orphans_of(leader)
    wait(lambda: os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    orphans.reap_members([leader, spare.pid])
    assert stranger.wait() == 7


def orphans_of(leader: int) -> None:
    assert processes.session_of(leader) == leader
