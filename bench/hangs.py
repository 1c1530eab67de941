"""How soon what hangs is at work again, and whether anything that does not hang is ever ended; at default limits.

    python bench/hangs.py [--quick] [--torch]

Each case has a workspace of its own, driven by the commands that a user types. Trainers are simulated, with steps of
0.2 s, so that the figures are those of the guards; ``--torch`` adds real ones. ``back_s`` is the time from the fault
until the step counter grows again, ``ended`` how many trainers the monitor ended, ``needless`` those of them that were
no hang.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import work

STEP_S = 0.2
BACK_LIMIT_S = 20.0
DAY_S = 86_400.0


class Case:
    """One workspace under one condition."""

    def __init__(self, root: Path, *, rows: int, simulated: str | None, environment: dict[str, str]) -> None:
        self.root = root / "workspace"
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        if simulated is not None:
            self.environment["OVERNIGHT_SIMULATED"] = simulated
        words = ["train.batch_size=4", "checkpoint.every_steps=10", "queue.settle_s=0.1", "queue.poll_interval_s=0.1"]
        settings = [part for word in words for part in ("--set", word)]
        self.run("init", str(self.root), "--base-model", "builtin:tiny", *settings)
        work.make_rows(root / "rows.jsonl", rows)
        self.run("-C", str(self.root), "add", str(root / "rows.jsonl"))

    def run(self, *words: str) -> None:
        """Run a command of the product."""
        command = [sys.executable, "-m", "overnight", *words]
        subprocess.run(command, check=True, capture_output=True, env=self.environment, stdin=subprocess.DEVNULL)

    def up(self) -> None:
        """Start its guards."""
        self.run("-C", str(self.root), "up", "--detach", "--no-web")

    def down(self) -> None:
        """End everything of it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.run("-C", str(self.root), "down", "--now")

    def status(self) -> dict[str, Any]:
        """Return what the product says."""
        done = subprocess.run(
            [sys.executable, "-m", "overnight", "-C", str(self.root), "status", "--json"],
            capture_output=True, check=False, env=self.environment,
        )  # fmt: skip
        return dict(json.loads(done.stdout))

    def step(self) -> int:
        """Return the step that the newest heartbeat tells; read from the file, so that looking costs nothing."""
        steps = [0]
        for path in sorted((self.root / ".overnight" / "attempts").glob("*/heartbeat.json")):
            with contextlib.suppress(OSError, ValueError):
                steps = [int(json.loads(path.read_text())["step"])]
        return steps[0]

    def wait(self, condition: Callable[[], Any], *, timeout: float) -> float:
        """Wait until something holds; return how long that took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"not within {timeout:g} s; {self.told()[-2000:]}")
            time.sleep(0.05)
        return time.monotonic() - began

    def finish(self, *, timeout: float = 300) -> None:
        """Wait until its file is done."""
        self.wait(lambda: any((self.root / "done").glob("*.jsonl")), timeout=timeout)

    def told(self) -> str:
        """Return the log of the anti-stuck monitor."""
        path = self.root / "logs" / "anti_stuck.log"
        return path.read_text() if path.exists() else ""

    def ended(self) -> int:
        """Return how many trainers the monitor ended."""
        return self.told().count("TERM:")


@contextmanager
def case(*, rows: int = 240, simulated: str | None = f"step_s={STEP_S}", **environment: str) -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder:
        made = Case(Path(folder), rows=rows, simulated=simulated, environment=environment)
        try:
            made.up()
            yield made
        finally:
            made.down()


def tell(name: str, *, ended: int, needless: int, back_s: float | None = None, **more: Any) -> None:
    is_ok = needless == 0 and (back_s is None or back_s <= BACK_LIMIT_S)
    figures = {"case": name, "back_s": None if back_s is None else round(back_s, 2), "ended": ended, **more}
    print(json.dumps({"bench": "hangs", **figures, "needless": needless, "ok": is_ok}), flush=True)


# what hangs


def stopped(*, rounds: int, simulated: str | None, name: str) -> None:
    """A trainer that somebody stops."""
    with case(rows=400 if simulated is not None else 4000, simulated=simulated) as one:
        one.wait(lambda: one.step() >= 5, timeout=120)
        times = []
        for _ in range(rounds):
            os.kill(one.status()["trainer"]["pid"], signal.SIGSTOP)
            seen = one.step()
            times.append(one.wait(lambda seen=seen: one.step() > seen, timeout=120))
        tell(name, ended=one.ended(), needless=one.ended(), back_s=max(times))


def hangs(*, fault: str, name: str, limit_s: float) -> None:
    """A step that never returns: seen, ended with evidence, and trained again."""
    with case(simulated=f"step_s={STEP_S},fault={fault}@25:1") as one:
        one.wait(lambda: one.step() == 25, timeout=120)
        back_s = one.wait(lambda: one.step() > 25, timeout=limit_s * 8)
        attempts = sorted((one.root / ".overnight" / "attempts").iterdir())
        evidence = sorted(
            path.name for path in attempts[0].iterdir() if path.name in ("hang.json", "process.json", "stacks.txt")
        )
        figures = {"case": name, "back_s": round(back_s, 2), "ended": one.ended(), "needless": 0}
        is_ok = back_s <= limit_s and len(evidence) == 3
        print(json.dumps({"bench": "hangs", **figures, "limit_s": limit_s, "ok": is_ok}), flush=True)


# what does not


def honest(name: str, options: str, disturb: Callable[[Case], None] | None = None, **environment: str) -> None:
    """Work that takes long, or is held up: nobody may be ended."""
    with case(simulated=f"step_s={STEP_S},{options}", **environment) as one:
        began = time.monotonic()
        if disturb is not None:
            one.wait(lambda: one.step() >= 20, timeout=120)
            disturb(one)
        one.finish(timeout=600)
        tell(name, ended=one.ended(), needless=one.ended(), took_s=round(time.monotonic() - began, 1))


@contextmanager
def hogs(number: int) -> Iterator[None]:
    found = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in found:
            hog.kill()
            hog.wait()


def crowded(one: Case) -> None:
    with hogs(8):
        one.finish(timeout=600)


def tree_of(one: Case) -> list[int]:
    status = one.status()
    return [status[name]["pid"] for name in ("watchdog", "daemon", "trainer")]


def frozen(seconds: float) -> Callable[[Case], None]:
    def freeze(one: Case) -> None:
        tree = tree_of(one)
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in tree:
            os.kill(pid, signal.SIGCONT)

    return freeze


def on_and_off(one: Case) -> None:
    """Stop the trainer four fifths of each second, to its end."""
    pid, over = one.status()["trainer"]["pid"], threading.Event()

    def disturb() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                over.wait(0.8)
                os.kill(pid, signal.SIGCONT)
                over.wait(0.2)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        one.finish(timeout=600)
    finally:
        over.set()
        disturber.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def other_days(folder: Path) -> tuple[dict[str, str], Callable[[Case], None]] | None:
    """Return a clock that goes a day back and a day on, or None where none can be built."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    try:
        import clock_shim
    except ImportError:  # without the tools of development
        return None
    try:
        clock = clock_shim.Clock(folder)
    except BaseException as error:
        print(f"no other clock: {error}", file=sys.stderr)
        return None

    def jump(one: Case) -> None:
        for shift in (-DAY_S, DAY_S, -DAY_S, 0.0):
            clock.shift(shift)
            time.sleep(2)

    return clock.environment, jump


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="shorter disturbances; not the native hang, which takes minutes"
    )
    parser.add_argument("--torch", action="store_true", help="also a real trainer that is stopped")
    options = parser.parse_args()
    stopped(rounds=1 if options.quick else 5, simulated=f"step_s={STEP_S}", name="stopped (SIGSTOP)")
    if options.torch:
        stopped(rounds=3, simulated=None, name="stopped, torch")
    hangs(fault="hang", name="a step sleeps for ever", limit_s=45)
    if not options.quick:
        hangs(fault="busy", name="a step computes for ever, natively", limit_s=240)
    seconds = 2 if options.quick else 12
    honest("a save 40 times longer and more", f"slow=save@30,slow_s={seconds}")
    honest(
        "an evaluation with items 20 times a step", f"slow=evaluation@25,slow_s=4.0,items={2 if options.quick else 12}"
    )
    honest("8 busy neighbours", "burn_s=0.1", crowded)
    honest("the whole tree frozen", "", frozen(12 if options.quick else 60))
    honest("stopped 80 % of the time", "", on_and_off)
    with tempfile.TemporaryDirectory(prefix="overnight-bench-") as folder:
        clock = other_days(Path(folder))
        if clock is not None:
            honest("the clock a day back and forth", "", clock[1], **clock[0])


if __name__ == "__main__":
    main()
