"""A beat is heard by whoever knows the pid, without a parent and without a disk; it dies with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from overnight.launchers import beats, processes
from overnight.launchers.processes import Identity

BEATER = """
import sys
from overnight.launchers.beats import Beat
beat = Beat()
for line in sys.stdin:
    beat.say(line.strip(), at=float(len(line)))
    print("said", flush=True)
"""


class Beater:
    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", BEATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        found = processes.identify(self.child.pid)
        assert found is not None
        self.identity: Identity = found

    def say(self, words: str) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(words, file=self.child.stdin, flush=True)
        assert self.child.stdout.readline() == "said\n"

    def end(self) -> None:
        self.child.kill()
        self.child.communicate()


@pytest.fixture
def beater() -> Iterator[Beater]:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memory files")
    made = Beater()
    yield made
    made.end()


def test_each_beat_is_heard_with_its_words(beater: Beater) -> None:
    beater.say("settle")
    assert beats.hear(beater.identity) == beats.Heard(count=1, at=7.0, doing="settle")
    beater.say("wörter " * 200)
    heard = beats.hear(beater.identity)
    assert heard is not None
    assert heard.count == 2
    assert heard.doing.startswith("wörter wörter")


def test_an_ear_sees_movement_standstill_and_the_end(beater: Beater) -> None:
    ear = beats.Ear(beater.identity, longest_s=2.0)
    beater.say("one")
    assert ear.look(at=0.0) is not None
    os.kill(beater.child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, beater.child.pid, os.WSTOPPED | os.WNOWAIT)
    verdicts = [ear.judge(at=float(at), limit_s=3.0) for at in (1, 2, 3, 4)]
    assert [verdict.is_hung for verdict in verdicts if verdict is not None] == [False, False, False, True]
    os.kill(beater.child.pid, signal.SIGCONT)
    beater.say("two")
    silence = ear.look(at=5.0)
    assert silence is not None
    assert silence.unmoved_s == 0
    beater.end()
    assert ear.look(at=6.0) is None
    ear.close()


def test_who_does_not_beat_and_who_is_another_is_not_heard(beater: Beater) -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = processes.identify(child.pid)
    assert identity is not None
    assert beats.hear(identity) is None
    child.kill()
    child.wait()
    beater.say("one")
    stranger = Identity(pid=beater.identity.pid, started=beater.identity.started + 1, boot=beater.identity.boot)
    assert beats.hear(stranger) is None


def test_no_beat_is_left_open_by_listening(beater: Beater) -> None:
    beater.say("one")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        beats.hear(beater.identity)
    assert len(os.listdir("/proc/self/fd")) == before
