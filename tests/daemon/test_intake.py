"""What is dropped into the inbox becomes a job, in order of arrival; what cannot be taken is told once and left."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from overnight.daemon.admission import DEATHS_LIMIT, read_note
from overnight.disk import claims
from overnight.domain.job import JobState
from simulated_rig import Rig


def everywhere(rig: Rig, name: str) -> list[str]:
    """Return the folders in which a file of that name lies."""
    found = [path for path in rig.layout.root.rglob(name) if path.is_file() and "datasets" not in path.parts]
    return sorted(path.parent.relative_to(rig.layout.root).as_posix() for path in found)


def test_a_dropped_file_is_trained_and_ends_in_done_as_it_was_given(rig: Rig) -> None:
    rig.make()
    data = rig.drop("a.jsonl").read_bytes()
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs() and rig.is_done() and rig.jobs()[0].filed)
    assert everywhere(rig, "a.jsonl") == ["done"]
    assert (rig.layout.done / "a.jsonl").read_bytes() == data
    assert claims.pending(rig.layout) == []


def test_a_bad_file_is_rejected_with_its_reason_and_the_good_one_behind_it_is_trained(rig: Rig) -> None:
    rig.make()
    rig.drop("bad.jsonl", data=b'{"text": "fine"}\n{"nonsense": 1}\n')
    rig.drop("good.jsonl")
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.jobs()) == 2 and all(job.filed for job in rig.jobs()))
    assert {job.file: job.state for job in rig.jobs()} == {
        "bad.jsonl": JobState.REJECTED, "good.jsonl": JobState.SUCCEEDED
    }  # fmt: skip
    assert json.loads((rig.layout.rejected / "bad.jsonl.report.json").read_text())["problems"][0]["line"] == 2


def test_the_order_is_that_of_arrival_whatever_the_files_say_of_their_age(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    context = rig.context()
    for number, name in enumerate(("first.jsonl", "second.jsonl", "third.jsonl")):
        path = rig.drop(name)
        os.utime(path, (10**9 - number * 10**6, 4 * 10**9 - number * 10**9))
        rig.tick_until(context, lambda count=number + 1: len(rig.jobs()) == count)
    assert [job.file for job in rig.jobs()] == ["first.jsonl", "second.jsonl", "third.jsonl"]


def test_a_file_that_is_still_written_is_left_until_it_is_whole(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    context = rig.context()
    path = rig.layout.inbox / "slow.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "one"}\n')
        file.flush()
        deadline = time.monotonic() + 0.6
        rig.tick_until(context, lambda: time.monotonic() > deadline)
        assert path.exists()
        file.write(b'{"text": "two"}\n')
    rig.tick_until(context, lambda: rig.jobs())
    assert rig.jobs()[0].examples == 2


@pytest.mark.parametrize("name", [".hidden.jsonl", "a.jsonl.part", "b.jsonl.tmp", "c.JSONL.PART"])
def test_unfinished_names_are_left_alone_without_a_word(rig: Rig, name: str) -> None:
    rig.make()
    rig.drop(name)
    context = rig.context()
    deadline = time.monotonic() + 0.4
    rig.tick_until(context, lambda: time.monotonic() > deadline)
    assert (rig.layout.inbox / name).exists()
    assert rig.events("inbox") == []


def plant(rig: Rig) -> dict[str, str]:
    """Put everything into the inbox that is never taken; return a word of each one's reason, by name."""
    inbox = rig.layout.inbox
    (inbox / "folder.jsonl").mkdir()
    os.mkfifo(inbox / "fifo.jsonl")
    (inbox / "dangling.jsonl").symlink_to("/none")
    target = rig.layout.root / "target.jsonl"
    target.write_bytes(b'{"text": "x"}\n')
    (inbox / "link.jsonl").symlink_to(target)
    links = {"shadow": "/etc/shadow", "pipe": "fifo.jsonl", "root": "/", "loop": "loop.jsonl", "zero": "/dev/zero"}
    for name, place in {**links, "up": "../config.json"}.items():
        (inbox / f"{name}.jsonl").symlink_to(place)
    os.chdir(inbox)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.jsonl")
    planted = {
        "folder.jsonl": "folder", "fifo.jsonl": "FIFO", "dangling.jsonl": "link", "link.jsonl": "link",
        "socket.jsonl": "socket",
        **{f"{name}.jsonl": "link" for name in ("shadow", "pipe", "root", "loop", "zero", "up")},
    }  # fmt: skip
    if os.geteuid() == 0:
        os.mknod(inbox / "device.jsonl", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        planted["device.jsonl"] = "device"
    for name in ("a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a"):
        rig.drop(name)
        planted[name] = ".jsonl"
    return planted


def test_what_is_never_taken_is_told_once_and_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.make()
    monkeypatch.chdir(rig.layout.root)
    planted = plant(rig)
    rig.drop("good.jsonl")
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs() and rig.is_done())
    assert [job.file for job in rig.jobs()] == ["good.jsonl"]
    told = {event["data"]["file"]: event["message"] for event in rig.events("inbox.not_taken")}
    assert set(told) == set(planted)
    for name, word in planted.items():
        assert os.path.lexists(rig.layout.inbox / name)
        assert word in told[name]
        assert json.loads((rig.layout.rejected / f"{name}.report.json").read_text())["reason"] == told[name]
    again = rig.context()
    rig.tick_until(again, lambda: "inbox" in again.memory and again.memory["inbox"].look > 1)
    assert len(rig.events("inbox.not_taken")) == len(planted), "a new loop does not say it again"


def test_odd_names_are_trained_and_shown_safely(rig: Rig) -> None:
    rig.make()
    names = [
        "x" * 249 + ".jsonl", "-rf.jsonl", "a b 'c' \"d\".jsonl", "new\nline.jsonl", "esc\x1b[31m.jsonl", "\udcff.jsonl"
    ]  # fmt: skip
    for number, name in enumerate(names):
        rig.drop(name, data=f'{{"text": "x{number}"}}\n'.encode())
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.jobs()) == len(names) and all(job.filed for job in rig.jobs()))
    assert rig.is_done()
    assert all(job.file.isprintable() for job in rig.jobs())
    assert len(list(rig.layout.done.iterdir())) == len(names)
    assert "\x1b" not in rig.log()


def test_ten_thousand_files_at_once_never_blind_the_loop(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    names = [f"{number:05d}.jsonl" for number in range(10_000)]
    for name in names:
        (rig.layout.inbox / name).write_bytes(b'{"text": "x"}\n')
    context = rig.context()
    ticks: list[float] = []

    def is_under_way() -> bool:
        return len(rig.jobs()) >= 30

    while not is_under_way():
        began = time.monotonic()
        rig.tick_until(context, lambda: True)
        ticks.append(time.monotonic() - began)
        assert sum(ticks) < 60
    assert max(ticks) < 2.0
    taken = [job.file for job in rig.jobs()]
    assert taken == names[: len(taken)], "files that arrived together go by name"


def test_a_file_that_vanishes_is_told_and_harms_nothing(rig: Rig) -> None:
    rig.make()
    path = rig.drop("gone.jsonl")
    context = rig.context()
    rig.tick_until(context, lambda: "gone.jsonl" in context.memory["inbox"].seen)
    path.unlink()
    rig.drop("good.jsonl")
    rig.tick_until(context, lambda: rig.jobs() and rig.is_done())
    assert [job.file for job in rig.jobs()] == ["good.jsonl"]


def test_a_claim_left_by_a_killed_daemon_is_taken_by_the_next_one(rig: Rig) -> None:
    rig.make()
    claims.claim_by_rename(rig.layout, rig.drop("left.jsonl"), at=time.time())
    (rig.layout.claimed / ".new-0123456789ab").mkdir()
    loop = rig.start_loop()
    rig.wait(lambda: rig.jobs() and rig.is_done() and rig.jobs()[0].filed)
    assert everywhere(rig, "left.jsonl") == ["done"]
    assert list(rig.layout.claimed.iterdir()) == []
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(10) == 0


def test_a_file_that_kills_the_intake_again_and_again_is_taken_last_and_holds_nobody_up(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    claim = claims.claim_by_rename(rig.layout, rig.drop("poison.jsonl"), at=time.time())
    for deaths in range(DEATHS_LIMIT):
        note = read_note(rig.layout)
        assert note.deaths.get(claim, 0) == deaths
        note.begin(claim)
    claims.claim_by_rename(rig.layout, rig.drop("good.jsonl"), at=time.time())
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.jobs()) == 2)
    assert [job.file for job in rig.jobs()] == ["good.jsonl", "poison.jsonl"]
    assert "taken last" in rig.events("intake.waiting")[0]["message"]
    rig.wait(lambda: not (rig.layout.state / "admission.json").exists())


def test_a_file_that_cannot_be_moved_is_told_and_taken_when_it_can(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    path = rig.drop("stuck.jsonl")
    if subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a file immutable")
    context = rig.context()
    try:
        rig.tick_until(context, lambda: rig.events("inbox.waiting"))
        rig.drop("good.jsonl")
        rig.tick_until(context, lambda: rig.jobs())
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    rig.tick_until(context, lambda: len(rig.jobs()) == 2)
    assert len(rig.events("inbox.waiting")) == 1
    assert [job.file for job in rig.jobs()] == ["good.jsonl", "stuck.jsonl"]


def test_the_same_file_again_is_a_job_of_its_own(rig: Rig) -> None:
    rig.make()
    context = rig.context()
    for count in (1, 2):
        rig.drop("same.jsonl", data=b'{"text": "x"}\n')
        rig.tick_until(context, lambda count=count: len(rig.jobs()) == count and all(job.filed for job in rig.jobs()))
    assert sorted(path.name for path in rig.layout.done.iterdir()) == ["same.2.jsonl", "same.jsonl"]


def test_random_names_all_arrive(rig: Rig) -> None:
    rig.make()
    rig.wish("paused")
    source = random.Random(7)
    names = {"".join(source.choices("abcäß✓ .-_", k=12)).strip(". ") + ".jsonl" for _ in range(20)}
    for name in names:
        rig.drop(name)
    context = rig.context()
    rig.tick_until(context, lambda: len(rig.jobs()) == len(names))
    assert {job.file for job in rig.jobs()} == names


def test_links_are_never_followed_out_of_the_inbox(rig: Rig, tmp_path: Path) -> None:
    rig.make()
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(b'{"text": "x"}\n')
    os.link(outside, rig.layout.inbox / "hard.jsonl")
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs() and rig.is_done())
    assert outside.read_bytes() == b'{"text": "x"}\n'


def test_a_file_that_comes_out_of_its_claim_after_its_job_is_over_is_in_one_place(rig: Rig) -> None:
    """What judges files may be killed between the job and the move of its file, and come back when all is trained."""
    rig.make()
    file = rig.drop("a.jsonl")
    data = file.read_bytes()
    context = rig.context()
    rig.tick_until(context, lambda: rig.jobs() and all(job.filed for job in rig.jobs()), timeout=60)
    claim = rig.layout.claimed / str(rig.connect().execute("SELECT claim FROM jobs").fetchone()[0])
    claim.mkdir()
    (claim / "a.jsonl").write_bytes(data)  # as it lies where the kill came before the move
    rig.tick_until(context, lambda: not claim.exists() and all(job.filed for job in rig.jobs()), timeout=60)
    rig.tick_until(context, lambda: os.listdir(rig.layout.waiting) == [], timeout=60)
    assert [path.parent for path in rig.layout.root.rglob("a.jsonl")] == [rig.layout.done]
    assert (rig.layout.done / "a.jsonl").read_bytes() == data
    assert [job.state.value for job in rig.jobs()] == ["succeeded"]
