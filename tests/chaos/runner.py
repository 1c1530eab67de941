"""The chaos runner: one workspace, a seeded stream of faults, and after each the time until it trains again.

    PYTHONPATH=tests python -m chaos --kills 300 --seed 7

Everything is done from outside: the command line, files, signals. The product has no hook for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos import faults
from chaos.members import GUARDS, Member, guards, guards_complete, members
from chaos.moments import Moments
from chaos.schedule import Plan, plans
from chaos.watching import Watching
from chaos.workspace import Kind, Workspace, name_of

MEMBER_S = 30.0
"""A member that is to be hit must be there within this, or the fault is passed over."""

POLL_S = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One fault that was injected, and what came of it."""

    number: int
    what: str
    victims: tuple[str, ...]
    moment: str
    phase: str  # what the trainer said it was doing
    at_s: float  # since the start of the run
    step: int
    is_recovered: bool
    recovery_s: float  # until the next trained step, from the blow or from when a passing trouble ended
    guard_s: float | None  # until watchdog and loop were both there
    note: str = ""

    @property
    def shown(self) -> str:
        guard = f", guard complete after {self.guard_s:.2f} s" if self.guard_s is not None else ""
        state = f"trained again after {self.recovery_s:.2f} s" if self.is_recovered else "NOT RECOVERED"
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.at_s:7.2f} s  #{self.number:<3d} {self.what} {'+'.join(self.victims)} at {self.moment}"
            f" [{self.phase}, step {self.step}]: {state}{guard}{note}"
        )


@dataclass
class Run:
    """What a run of chaos leaves to be judged."""

    seed: int
    kind: Kind
    workspace: Workspace
    files: list[int] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    offences: list[str] = field(default_factory=list)
    passed_over: int = 0
    ups: int = 0  # how often the operator had to start it again: both guards were ended on purpose
    sessions: set[tuple[int, int]] = field(default_factory=set)
    looks: int = 0
    wall_s: float = 0.0
    freezer: str = ""  # why there is none


class Chaos:
    """One run."""

    def __init__(
        self, root: Path, kind: Kind, *, seed: int, kills: int, tell: Callable[[str], None], python_path: str = ""
    ) -> None:
        self.workspace = Workspace(root, kind, python_path=python_path)
        self.kind, self.seed, self.kills, self.tell = kind, seed, kills, tell
        self.run_ = Run(seed=seed, kind=kind, workspace=self.workspace)
        self.watching = Watching(root)
        self.moments = Moments(self.workspace, self.watching, meanwhile=self._keep_busy)
        self.freezer = faults.Freezer()
        self.luck = random.Random(f"files {seed}")
        self.begun = 0.0
        self.stopped: list[Member] = []
        self.crashed_at: int | None = None

    def run(self, *, limit_s: float = 3600.0) -> Run:
        """Inject the faults, let the work end, end the workspace; what is found is in the result."""
        self.begun = time.monotonic()
        self.freezer.open()
        self.run_.freezer = self.freezer.why
        try:
            self.workspace.init()
            for _ in range(self.kind.at_hand):
                self._add_file(by_command=True)
            self._up()
            self.watching.start()
            self._await(lambda: bool(self.watching.steps), self.kind.bound_s, "the first step")
            self._inject_all(limit_s)
            self._finish()
        finally:
            self.watching.stop()
            self.freezer.close()
            for member in self.stopped:
                member.send(signal.SIGCONT)
            self.run_.offences += self.watching.offences
            self.run_.sessions, self.run_.looks = self.watching.sessions, self.watching.looks
            self.run_.wall_s = time.monotonic() - self.begun
        return self.run_

    def _inject_all(self, limit_s: float) -> None:
        for plan in plans(self.seed, without=self.kind.without):
            if len(self.run_.injected) >= self.kills:
                return
            if time.monotonic() - self.begun > limit_s:
                self.run_.offences.append(f"only {len(self.run_.injected)} faults in {limit_s:.0f} s")
                return
            self._top_up()
            if not self._inject(plan):
                self.run_.passed_over += 1
                self.tell(
                    f"{time.monotonic() - self.begun:7.2f} s  #{plan.number} {plan.shown}: the victim was not there"
                )

    def _finish(self) -> None:
        """Let the queue run empty, then end everything by the command."""
        last = [time.monotonic(), -1]

        def is_over() -> bool:
            if not guards_complete(self.workspace.root) and time.monotonic() - last[0] > 10:
                self._up()
            now = len(self.watching.steps)
            if now != last[1]:
                last[:] = [time.monotonic(), now]
            if time.monotonic() - last[0] > self.kind.bound_s:
                raise AssertionError(f"the rest of the work does not go on\n{self.workspace.tail()}")
            return len(self.workspace.done()) + len(self._failed()) >= len(self.run_.files)

        self._await(is_over, 3600, "the end of the work")
        self.workspace.run("up", "--until-idle", "--no-web", check=False, timeout=120)
        down = self.workspace.run("down", check=False, timeout=180)
        if down.returncode != 0:
            self.run_.offences.append(f"down: exit {down.returncode}: {down.stderr.strip()[-500:]}")

    def _failed(self) -> list[Path]:
        return [path for path in (self.workspace.root / "failed").iterdir() if path.suffix == ".jsonl"]

    # work

    def _top_up(self) -> None:
        """See that there are steps left to be disturbed."""
        while len(self.run_.files) - len(self.workspace.done()) < self.kind.at_hand:
            if not guards_complete(self.workspace.root):
                return
            self._add_file(by_command=self.luck.random() < 0.2)

    def _keep_busy(self) -> None:
        """Where the last file is being trained, drop one more; whoever is alive takes it."""
        if len(self.run_.files) - len(self.workspace.done()) < 2 and not self.workspace.inbox():
            self.run_.files.append(len(self.run_.files))
            self.workspace.drop(self.run_.files[-1])

    def _add_file(self, *, by_command: bool) -> None:
        if by_command:  # it is judged there and then: what came before it must have been judged
            claimed = self.workspace.root / ".overnight" / "claimed"
            self._await(lambda: not self.workspace.inbox() and not os.listdir(claimed), self.kind.bound_s, "the intake")
        number = len(self.run_.files)
        self.run_.files.append(number)
        if by_command:
            self.workspace.add(number)
            return
        self.workspace.drop(number)
        self._await(lambda: not self.workspace.inbox(), self.kind.bound_s, f"{name_of(number)} being taken")

    def _up(self) -> None:
        """Start it as an operator or a service manager would, until the guards are there."""
        self.run_.ups += 1
        deadline = time.monotonic() + 60
        while True:
            done = self.workspace.up()
            if done.returncode in (0, 75) and self._holds(lambda: guards_complete(self.workspace.root), 5):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"up: exit {done.returncode}\n{done.stderr}\n{self.workspace.tail()}")

    def _await(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        if not self._holds(condition, limit_s):
            raise AssertionError(f"{what} never came\n{self.workspace.tail()}")

    def _holds(self, condition: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    # faults

    def _inject(self, plan: Plan) -> bool:
        """Bring one fault about; return whether it could be."""
        since = len(self.watching.steps)
        if not self._holds(lambda: len(self.watching.steps) >= since + plan.steps, self.kind.bound_s):
            self._lost(plan, "no steps came before it")
            return True
        note = ""
        if not self._reach(plan):
            note = f"{plan.moment} did not come"
        victims = self._victims(plan)
        if not victims:
            return False
        time.sleep(plan.delay_s)
        seen = self.watching.now
        before = self.watching.attempt()
        at = time.monotonic()
        struck, end, more = self._strike(plan, victims)
        if not struck:
            return False
        note = "; ".join(filter(None, [note, more]))
        is_recovered, recovery_s, guard_s, more = self._recover(plan, struck, before, at, end)
        note = "; ".join(filter(None, [note, more]))
        done = Injected(
            number=plan.number, what=plan.what, victims=plan.victims, moment=plan.moment,
            phase=seen.phase if seen else "", at_s=at - self.begun, step=seen.step if seen else 0,
            is_recovered=is_recovered, recovery_s=recovery_s, guard_s=guard_s, note=note,
        )  # fmt: skip
        self.run_.injected.append(done)
        self.tell(done.shown)
        if not is_recovered:
            self._rescue()
        return True

    def _reach(self, plan: Plan) -> bool:
        """Wait for the moment of a plan; where it does not come by itself, bring it about."""
        patience_s = self.kind.patience_s
        if plan.moment == "intake":
            self._drop_quietly()
            return self.moments.wait_for("intake", patience_s=10)
        if plan.moment in ("launch", "load"):
            if self.moments.wait_for(plan.moment, patience_s=patience_s):
                return True
            for member in self._there("trainer"):  # a launch follows a death
                member.send(signal.SIGKILL)
            return self.moments.wait_for(plan.moment, patience_s=20)
        return self.moments.wait_for(plan.moment, patience_s=4 * patience_s)

    def _drop_quietly(self) -> None:
        number = len(self.run_.files)
        self._holds(lambda: not self.workspace.inbox(), self.kind.bound_s)
        self.run_.files.append(number)
        self.workspace.drop(number)

    def _there(self, *roles: str) -> list[Member]:
        wanted = {"trainer", "gate"} if "trainer" in roles else set()
        return [member for member in members(self.workspace.root) if member.role in {*roles, *wanted}]

    def _victims(self, plan: Plan) -> list[Member]:
        if plan.victims == ("everything",):
            return members(self.workspace.root)
        found: list[Member] = []

        def is_there() -> bool:
            found[:] = self._there(*plan.victims)
            return {"trainer" if m.role == "gate" else m.role for m in found} >= set(plan.victims)

        is_brief = plan.victims == ("admission",)
        if is_brief and not any(member.role == "admission" for member in self._there("admission")):
            return self._there("admission")
        self._holds(is_there, min(MEMBER_S, self.kind.bound_s))
        return found if is_there() else []

    def _strike(self, plan: Plan, victims: list[Member]) -> tuple[list[Member], float, str]:
        """Do it; return who was hit, when the trouble that passes by itself was over, and a note."""
        match plan.what:
            case "pause":
                struck = faults.strike(victims, signal.SIGSTOP)
                time.sleep(plan.lasting_s)
                faults.strike(struck, signal.SIGCONT)
                return struck, time.monotonic(), f"for {plan.lasting_s:.2f} s"
            case "freeze" if self.freezer.is_available:
                with self.freezer.frozen(victims):
                    struck = faults.strike(victims, signal.SIGKILL)
                    time.sleep(plan.lasting_s)
                return struck, time.monotonic(), f"killed while frozen for {plan.lasting_s:.2f} s"
            case "starve":
                with faults.famine(victims):
                    time.sleep(plan.lasting_s)
                return victims, time.monotonic(), f"for {plan.lasting_s:.2f} s"
            case "second":
                return victims, time.monotonic(), self._start_second(victims[0])
            case "stop":
                struck = faults.strike(victims, signal.SIGSTOP)
                self.stopped += struck
                return struck, time.monotonic(), ""
            case "rot":
                struck = faults.strike(victims, signal.SIGKILL)
                self._holds(lambda: not members(self.workspace.root), 10)
                return struck, time.monotonic(), self._rot(plan)
            case "crash":
                number = faults.SIGNALS["crash"][int(plan.luck * 2)]
                step = self.watching.now.step if self.watching.now else 0
                if plan.victims == ("trainer",) and self.crashed_at == step:
                    number = signal.SIGKILL  # three equal crashes in a row are the job's own, and it is given up
                self.crashed_at = step if plan.victims == ("trainer",) else self.crashed_at
                return faults.strike(victims, number), time.monotonic(), signal.Signals(number).name
        number = signal.SIGTERM if plan.what == "term" else signal.SIGKILL
        return faults.strike(victims, number), time.monotonic(), ""

    def _rot(self, plan: Plan) -> str:
        """Damage the newest checkpoint where an older one of the same job lets the work go on exactly."""
        newest = self.workspace.newest() if self.workspace.checkpoints() else None
        if newest is None or len(self.workspace.checkpoints()) < 2:
            return "no checkpoint to damage"
        manifest = json.loads((newest / "manifest.json").read_bytes())
        if manifest["job_step"] == manifest["job_total"]:
            return "the newest checkpoint ends a job: left whole"
        return f"{newest.name}: {faults.rot(newest, plan.luck)}"

    def _start_second(self, victim: Member) -> str:
        """Start another one beside it, as a confused operator does; it must leave by itself."""
        words = Path(f"/proc/{victim.pid}/cmdline").read_bytes().split(b"\0")[1:-1]
        texts = [word.decode() for word in words]
        if "-m" not in texts:
            return "it is gone"
        command = [sys.executable, *texts[texts.index("-m") :]]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.workspace.environment, cwd=self.workspace.root,
        )  # fmt: skip
        self.watching.ours.add(child.pid)
        try:
            code = child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            self.run_.offences.append(f"a second {victim.role} was let in beside the first")
            return "it was let in"
        if code == 0 and victim.is_alive():
            self.run_.offences.append(f"a second {victim.role} was let in beside the first: it did its work and left")
        return f"it left with exit code {code}"

    # recovery

    def _recover(
        self, plan: Plan, struck: list[Member], before: str, at: float, end: float
    ) -> tuple[bool, float, float | None, str]:
        """Wait until it trains again and is guarded; return whether, and after how long each."""
        roles = {member.role for member in struck}
        trainers = [member for member in struck if member.role in ("trainer", "gate")]
        is_deadly = plan.what not in ("pause", "starve", "second")
        is_asked_to_end = plan.what == "term" and bool(roles & set(GUARDS))
        if is_asked_to_end and not self._holds(lambda: not self._guards(), self.kind.bound_s):
            self._lost_words(f"{plan.shown}: it was asked to end and did not")
        if is_asked_to_end or (is_deadly and plan.what != "stop" and roles >= set(GUARDS)):
            self._up()
            end = time.monotonic() if is_asked_to_end else end
        is_new = is_deadly and bool(trainers or is_asked_to_end)
        hit = [member for member in struck if member.role in GUARDS] if is_deadly else []
        is_by_itself = not (is_asked_to_end or roles >= set(GUARDS))  # and not by the operator's up
        untouched = [] if is_new or not is_deadly else [one for one in self._there("trainer") if one.role == "trainer"]
        guard_at: float | None = None
        deadline = time.monotonic() + self.kind.bound_s
        while time.monotonic() < deadline:
            self._keep_busy()
            if guard_at is None and self._is_guarded(hit):
                guard_at = time.monotonic()
            step = self.watching.trained_after(end, other_than=before if is_new else None)
            if step is not None and guard_at is not None:
                note = self._check_untouched(plan, untouched, before)
                guard_s = guard_at - at if hit and is_by_itself else None
                return True, step.at - end, guard_s, note
            time.sleep(POLL_S)
        self._lost_words(f"{plan.shown}: no new step, or no complete guard, within {self.kind.bound_s:.0f} s")
        return False, time.monotonic() - at, None, ""

    def _guards(self) -> list[Member]:
        return [member for member in members(self.workspace.root) if member.role in GUARDS]

    def _is_guarded(self, hit: list[Member]) -> bool:
        """Return whether both guards are there, and none of them is one that was hit."""
        there = guards(self.workspace.root)
        return len(there) == 2 and not any(member.pid in there for member in hit)

    def _check_untouched(self, plan: Plan, trainers: list[Member], before: str) -> str:
        """A fault that hit only guards costs the trainer nothing."""
        for member in trainers:
            attempt = member.attempt or before
            if not member.is_alive() and not self.watching.is_reported(attempt):
                self.run_.offences.append(f"#{plan.number} {plan.shown}: the trainer of {attempt} died of it")
        return ""

    def _lost(self, plan: Plan, why: str) -> None:
        self._lost_words(f"{plan.shown}: {why}")
        seen = self.watching.now
        self.run_.injected.append(
            Injected(
                number=plan.number, what=plan.what, victims=plan.victims, moment=plan.moment,
                phase=seen.phase if seen else "", at_s=time.monotonic() - self.begun, step=seen.step if seen else 0,
                is_recovered=False, recovery_s=self.kind.bound_s, guard_s=None, note=why,
            )
        )  # fmt: skip
        self.tell(self.run_.injected[-1].shown)
        self._rescue()

    def _lost_words(self, words: str) -> None:
        self.run_.offences.append(words)
        self.tell(f"{words}\n{self.workspace.tail()}")

    def _rescue(self) -> None:
        """So that one failure does not hide what else would come: begin again as after a power cut."""
        self.workspace.end()
        with contextlib.suppress(AssertionError):
            self._up()
        since = len(self.watching.steps)
        if not self._holds(lambda: len(self.watching.steps) > since, self.kind.bound_s):
            raise AssertionError(f"not even a fresh start goes on\n{self.workspace.tail()}")
