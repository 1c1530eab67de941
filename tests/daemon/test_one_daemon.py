"""One daemon, one model: by kernel locks and identities, whatever name, mount, user, container or machine is tried."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from overnight.daemon.locks import take_locks
from overnight.disk import files, lease, ownership
from overnight.disk.base_models import resolve
from overnight.domain.errors import ConfigError
from overnight.domain.lease import LIMIT_S, Host, Lease, foreign
from overnight.launchers import processes
from simulated_rig import Rig

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
STRACE = shutil.which("strace")


def start(path: Path | str, *, wrapper: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Start a daemon that is expected to be refused."""
    return subprocess.run(
        [*(wrapper or []), sys.executable, "-m", "overnight.daemon", str(path)],
        capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def overnight(path: Path, *words: str, wrapper: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(wrapper or []), sys.executable, "-m", "overnight", "-C", str(path), *words],
        capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def running(rig: Rig) -> subprocess.Popen[bytes]:
    """Start a loop and wait until it holds its workspace and has told so."""
    loop = rig.start_loop()
    rig.wait(lambda: rig.daemon_pid() == loop.pid and rig.events("daemon.start"), timeout=90)
    return loop


def bind(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    if subprocess.run(["mount", "--bind", str(source), str(target)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")


def unbind(target: Path) -> None:
    subprocess.run(["umount", "-l", str(target)], capture_output=True, check=False)


def test_no_link_and_no_roundabout_path_lets_a_second_daemon_in(rig: Rig, tmp_path: Path) -> None:
    rig.make()
    first = running(rig)
    (tmp_path / "link").symlink_to(rig.layout.root)
    (tmp_path / "up").mkdir()
    for path in (tmp_path / "link", rig.layout.root / "inbox" / "..", f"{tmp_path}/up/../link/queue/../"):
        second = start(path)
        assert second.returncode == 75, second.stderr
        assert f"pid {first.pid} on " in second.stderr
    refused = overnight(tmp_path / "link", "up", "--detach")
    assert refused.returncode == 75
    assert f"pid {first.pid} on " in refused.stderr
    assert first.poll() is None


def test_no_mount_lets_a_second_daemon_in(rig: Rig, tmp_path: Path) -> None:
    rig.make()
    first = running(rig)
    mounted = tmp_path / "mounted"
    bind(rig.layout.root, mounted)
    try:
        second = start(mounted)
    finally:
        unbind(mounted)
    assert second.returncode == 75, second.stderr
    assert f"pid {first.pid} on " in second.stderr
    assert first.poll() is None


@pytest.fixture
def open_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Give a workspace that every user may read and write."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    if subprocess.run([*NOBODY, sys.executable, "-c", "import overnight"], capture_output=True, check=False).returncode:
        pytest.skip("another user cannot reach this Python")
    folder = Path(tempfile.mkdtemp(prefix="overnight-users."))
    folder.chmod(0o777)
    made = Rig(folder / "workspace", monkeypatch)
    made.make()
    subprocess.run(["chmod", "-R", "a+rwX", str(folder)], check=True)
    yield made
    made.end()
    shutil.rmtree(folder)


def test_another_user_s_daemon_is_not_taken_for_dead_and_is_named(open_rig: Rig) -> None:
    """Signal 0 to it gives EPERM: whoever reads that as dead starts a second one."""
    rig = open_rig
    first = running(rig)
    subprocess.run(["chmod", "-R", "a+rwX", str(rig.layout.root)], check=True)
    may = "import os, sys; os.kill(int(sys.argv[1]), 0)"
    asked = subprocess.run([*NOBODY, sys.executable, "-c", may, str(first.pid)], capture_output=True, check=False)
    assert b"PermissionError" in asked.stderr
    second = start(rig.layout.root, wrapper=NOBODY)
    assert second.returncode == 75, second.stderr
    assert f"pid {first.pid} on " in second.stderr
    assert "since 20" in second.stderr
    rig.layout.database.chmod(0o644)
    refused = overnight(rig.layout.root, "up", "--detach", wrapper=NOBODY)
    assert refused.returncode == 75, refused.stderr
    assert f"pid {first.pid} on " in refused.stderr
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    subprocess.run(["chmod", "-R", "a+rwX", str(rig.layout.root)], check=True)
    theirs = rig.start_loop(wrapper=NOBODY)
    rig.wait(lambda: rig.daemon_pid() == theirs.pid, timeout=90)
    ours = start(rig.layout.root)
    assert ours.returncode == 75, ours.stderr
    assert f"pid {theirs.pid} on " in ours.stderr


@pytest.mark.parametrize("how", ["deleted", "replaced", "emptied", "naming one that is gone"])
def test_whatever_becomes_of_the_lock_file_the_second_start_is_refused_and_names_the_first(rig: Rig, how: str) -> None:
    rig.make()
    first = running(rig)
    os.kill(first.pid, signal.SIGSTOP)  # it cannot make its file again before the second one has looked
    try:
        lock = rig.layout.daemon_lock
        if how == "emptied":
            lock.write_bytes(b"")
        elif how == "naming one that is gone":
            gone = subprocess.Popen(["true"])
            gone.wait()
            lock.write_text(json.dumps({"pid": gone.pid, "host": os.uname().nodename, "since": 1.0}))
        else:
            lock.unlink()
        if how == "replaced":
            lock.write_text("{}")
        second = start(rig.layout.root)
        assert second.returncode == 75, second.stderr
        assert f"pid {first.pid} (python" in second.stderr
        if how in ("deleted", "replaced"):
            assert lease.read(rig.layout) is not None
            refused = overnight(rig.layout.root, "up", "--detach")
            assert refused.returncode == 75, refused.stderr
            assert f"pid {first.pid} (python" in refused.stderr
    finally:
        os.kill(first.pid, signal.SIGCONT)
    if how in ("deleted", "replaced"):
        rig.wait(lambda: rig.events("daemon.lock_deleted"), timeout=90)
        assert rig.daemon_pid() == first.pid


PARENT = """
import os, sys, time
from pathlib import Path
from overnight.daemon.locks import take_locks
from overnight.disk.layout import Layout
locks = take_locks(Layout(Path(sys.argv[1])), now=time.time())
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
print(child, flush=True)
time.sleep(600)
"""


def freezer() -> Path | None:
    folder = Path("/sys/fs/cgroup/freezer") / f"overnight-child-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        return None
    return folder


def test_a_child_that_keeps_the_lock_of_its_dead_parent_is_named_and_the_start_takes_over_when_it_is_gone(
    rig: Rig,
) -> None:
    rig.make()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(rig.layout.root)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    cold = freezer()
    try:
        if cold is not None:  # then not even a kill ends it
            (cold / "cgroup.procs").write_text(str(child))
            (cold / "freezer.state").write_text("FROZEN")
        parent.kill()
        parent.wait()
        refused = start(rig.layout.root)
        assert refused.returncode == 75, refused.stderr
        assert f"pid {child} (python" in refused.stderr
        assert f"left behind by pid {parent.pid}" in refused.stderr
        os.kill(child, signal.SIGKILL)
        if cold is not None:
            assert start(rig.layout.root).returncode == 75, "a frozen one holds it still"
    finally:
        parent.stdout.close()
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if cold is not None:
            (cold / "freezer.state").write_text("THAWED")
            deadline = time.monotonic() + 60
            while (cold / "cgroup.procs").read_text().split() and time.monotonic() < deadline:
                time.sleep(0.05)
            cold.rmdir()
    rig.wait(lambda: processes.identify(child) is None, timeout=60)
    running(rig)


@pytest.mark.skipif(STRACE is None, reason="needs strace to break a system call")
@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_refused_with_what_to_do(rig: Rig, tmp_path: Path, error: str) -> None:
    rig.make(files=1)
    broken = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:error={error}"]
    daemon = start(rig.layout.root, wrapper=broken)
    up = overnight(rig.layout.root, "up", "--detach", wrapper=broken)
    for said in (daemon, up):
        assert said.returncode == 73, said.stderr
        assert "expected: a file system with kernel locks" in said.stderr.lower()
        assert "To do:" in said.stderr
        assert "Traceback" not in said.stderr
    assert rig.attempts() == []
    new = tmp_path / "new"
    made = subprocess.run(
        [*broken, sys.executable, "-m", "overnight", "init", str(new), "--base-model", "builtin:tiny"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert made.returncode == 73, made.stderr
    assert "kernel locks" in made.stderr
    assert not (new / "config.json").exists()


class Elsewhere:
    """Another machine: its own boot and name; ``blind`` sees no lock of anybody, as on a share that keeps none."""

    def __init__(self, folder: Path) -> None:
        boot = folder / "boot_id"
        boot.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
        words = f'mount --bind {boot} /proc/sys/kernel/random/boot_id && hostname elsewhere && exec "$@"'
        self.wrapper = ["unshare", "--mount", "--uts", "sh", "-c", words, "sh"]
        granted = ["-e", "trace=flock", "-e", "inject=flock:retval=0"]
        self.blind = [*self.wrapper, "strace", "-f", "-qq", "-o", "/dev/null", *granted]
        asked = [*self.blind, sys.executable, "-c", "import os; print(os.uname().nodename)"]
        if STRACE is None or subprocess.run(asked, capture_output=True, check=False).stdout != b"elsewhere\n":
            pytest.skip("needs the right to make mount and name namespaces, and strace")


def test_on_a_share_without_locks_another_machine_is_kept_out_by_the_lease_until_it_runs_out(
    rig: Rig, tmp_path: Path
) -> None:
    elsewhere = Elsewhere(tmp_path)
    rig.make()
    first = running(rig)
    here = os.uname().nodename
    for said in (start(rig.layout.root, wrapper=elsewhere.blind),
                 overnight(rig.layout.root, "up", "--detach", wrapper=elsewhere.blind),
                 overnight(rig.layout.root, "pause", "--no-wait", wrapper=elsewhere.blind)):  # fmt: skip
        assert said.returncode == 75, said.stderr
        assert "at work on another machine" in said.stderr
        assert f"pid {first.pid} on {here}" in said.stderr
        assert "not renewed for 5 minutes" in said.stderr
    # killed: the lease stays, and is nobody's business on the same machine
    first.kill()
    first.wait()
    assert start(rig.layout.root, wrapper=elsewhere.blind).returncode == 75
    again = running(rig)
    again.kill()
    again.wait()
    # run out: the other machine takes over, and then this one is kept out
    long_ago = time.time() - LIMIT_S - 1
    os.utime(rig.layout.lease, (long_ago, long_ago))
    theirs = rig.start_loop(wrapper=elsewhere.wrapper)
    rig.wait(lambda: rig.daemon_pid() == theirs.pid, timeout=90)
    rig.wait(lambda: (told := lease.read(rig.layout)) is not None and told.host.name == "elsewhere", timeout=90)
    refused = overnight(rig.layout.root, "status")
    assert refused.returncode == 75, refused.stdout
    assert "on elsewhere" in refused.stderr
    # ended in order, it is given back at once
    theirs.send_signal(signal.SIGTERM)
    assert theirs.wait(60) == 0
    assert not rig.layout.lease.exists()
    running(rig)


def test_a_daemon_whose_lease_another_machine_has_taken_leaves(rig: Rig) -> None:
    rig.make()
    context = rig.context()
    context.locks = take_locks(rig.layout, now=time.time())
    rig.tick_until(context, lambda: context.standing.state == "idle")
    theirs = {"schema": 1, "host": {"name": "elsewhere", "machine": "m", "boot": "b"}, "pid": 7, "since": 1.0}
    files.write_json_atomically(rig.layout.lease, theirs)
    context.memory["renew_at"] = 0.0
    rig.tick_until(context, lambda: context.is_over, timeout=60)
    assert "pid 7 on elsewhere" in rig.events("daemon.lease_lost")[0]["message"]
    told = lease.read(rig.layout)
    assert told is not None
    assert told.host.name == "elsewhere", "it was left to the other"


HERE = Host(name="a", machine="m", boot="1")


@pytest.mark.parametrize(
    ("host", "age_s", "is_foreign"),
    [
        (HERE, 0.0, False),
        (Host(name="container", machine="", boot="1"), 0.0, False),
        (Host(name="a", machine="m", boot="2"), 0.0, False),
        (Host(name="a", machine="other", boot="2"), 1.0, True),
        (Host(name="b", machine="m", boot="2"), LIMIT_S - 1, True),
        (Host(name="b", machine="m", boot=""), 1.0, True),
        (Host(name="b", machine="m", boot="2"), LIMIT_S, False),
        (Host(name="b", machine="m", boot="2"), -20.0, True),
        (Host(name="b", machine="m", boot="2"), -3e7, False),
    ],
    ids=["this boot", "a container of it", "the boot before", "a namesake", "another machine", "one without boots",
         "it has run out", "its clock is a little ahead", "the clock was set back a year"],
)  # fmt: skip
def test_whose_lease_it_is(host: Host, age_s: float, is_foreign: bool) -> None:
    told = foreign(Lease(host=host, pid=7, since=1.0), here=HERE, age_s=age_s)
    assert (told is not None) == is_foreign


def test_a_process_that_a_lock_names_is_believed_by_its_identity_and_not_by_its_number() -> None:
    ours = processes.identify(os.getpid())
    assert ours is not None
    assert processes.identity_of({"pid": ours.pid, "identity": str(ours)}) == ours
    assert processes.identity_of({"pid": ours.pid, "identity": f"{ours.pid}:{ours.started + 1}:{ours.boot}"}) is None
    assert processes.identity_of({"pid": ours.pid, "identity": f"{ours.pid}:{ours.started}:another-boot"}) is None
    assert processes.identity_of({"pid": ours.pid, "identity": "nonsense"}) is None
    assert processes.identity_of({"pid": ours.pid}) == ours
    assert processes.identity_of({}) is None


@pytest.fixture
def second_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "second", monkeypatch)
    yield made
    made.end()


def link(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    target.symlink_to(source)


@pytest.mark.parametrize("name", ["current_model", "models"])
def test_a_workspace_whose_model_folder_leads_into_another_one_is_refused(rig: Rig, second_rig: Rig, name: str) -> None:
    rig.make()
    second_rig.make(files=1)
    link(rig.layout.root / name, second_rig.layout.root / name)
    for said in (start(second_rig.layout.root), overnight(second_rig.layout.root, "up", "--detach")):
        assert said.returncode == 78, said.stderr
        assert f"{name}/ of this workspace is another workspace's" in said.stderr
        assert str(rig.layout.root) in said.stderr
        assert "To do:" in said.stderr
    assert second_rig.attempts() == []


def test_a_link_into_another_workspace_that_is_made_under_the_daemon_starts_nothing(rig: Rig, second_rig: Rig) -> None:
    rig.make()
    second_rig.make()
    context = second_rig.context()
    second_rig.tick_until(context, lambda: context.standing.state == "idle")
    link(rig.layout.model, second_rig.layout.model)
    second_rig.submit("a.jsonl")
    second_rig.tick_until(context, lambda: "is another workspace's" in context.standing.reason)
    assert second_rig.attempts() == []
    assert list(rig.layout.model.iterdir()) == []


def test_a_model_folder_that_is_mounted_into_a_second_workspace_is_the_first_one_s(rig: Rig, second_rig: Rig) -> None:
    rig.simulate(step_s=0.2)
    rig.make(files=1, rows=20_000)
    second_rig.make(files=1)
    first = running(rig)
    rig.wait(rig.trainer_pid, timeout=90)
    bind(rig.layout.model, second_rig.layout.model)
    try:
        if ownership.label_of(rig.layout.model) is not None:
            said = start(second_rig.layout.root)
            assert said.returncode == 78, said.stderr
            assert str(rig.layout.root) in said.stderr
            os.removexattr(rig.layout.model, ownership.LABEL)  # as where no labels are kept
        context = second_rig.context()
        second_rig.tick_until(context, lambda: "a trainer of another workspace works in" in context.standing.reason)
        assert f"pid {rig.trainer_pid()} (" in context.standing.reason
        assert second_rig.attempts() == []
        assert first.poll() is None
    finally:
        unbind(second_rig.layout.model)


def test_a_workspace_that_was_moved_or_copied_owns_its_model_folder(rig: Rig, tmp_path: Path) -> None:
    rig.make()
    layout = rig.layout
    ownership.claim_folders(layout)
    moved = type(layout)(tmp_path / "moved")
    shutil.move(layout.root, moved.root)
    ownership.claim_folders(moved)
    copied = type(layout)(tmp_path / "copied")
    subprocess.run(["cp", "-a", str(moved.root), str(copied.root)], check=True)
    ownership.claim_folders(copied)
    ownership.claim_folders(moved)


def test_a_checkpoint_of_a_workspace_is_no_base_model_for_another(rig: Rig, second_rig: Rig) -> None:
    rig.make()
    second_rig.make()
    checkpoint = rig.layout.model / "checkpoint-5"
    checkpoint.mkdir()
    with pytest.raises(ConfigError, match="cannot be the base model"):
        resolve(second_rig.layout, str(checkpoint))
    version = rig.layout.versions / "v001"
    version.mkdir()
    assert resolve(second_rig.layout, str(version)) == str(version)


def test_of_eight_watchdogs_started_at_once_one_acts(rig: Rig) -> None:
    rig.make()
    watchdogs = [rig.start_watchdog() for _ in range(8)]
    rig.wait(lambda: sum(one.poll() is None for one in watchdogs) == 1 and rig.daemon_pid(), timeout=100)
    assert sorted(one.poll() or 0 for one in watchdogs) == [0] + [75] * 7
    (last,) = [one for one in watchdogs if one.poll() is None]
    rig.wait(lambda: rig.events("daemon.start"), timeout=100)
    loop = rig.daemon_pid()
    assert loop is not None
    os.kill(loop, signal.SIGKILL)
    rig.wait(lambda: rig.daemon_pid() not in (None, loop), timeout=100)
    rig.wait(lambda: len(rig.events("daemon.start")) == 2, timeout=100)
    assert len(rig.events("daemon.restarted")) == 1
    assert last.poll() is None
