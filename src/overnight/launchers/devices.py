"""What the NVIDIA driver's own tool says of the GPUs, asked with a deadline: a driver that hangs hangs nobody here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

from overnight.domain.diagnosis import Gpus

LIMIT_S = 5.0
QUESTION = "--query-gpu=name,memory.total,memory.used,temperature.gpu"


def ask_gpus(*, limit_s: float = LIMIT_S) -> Gpus:
    """Return the GPUs that nvidia-smi lists; figures that it cannot tell ("[N/A]") are left out."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Gpus(is_there=False, trouble=None, names=[])
    try:
        child = subprocess.Popen(
            [program, QUESTION, "--format=csv,noheader,nounits"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Gpus(is_there=True, trouble=f"nvidia-smi cannot be started: {error.strerror or error}", names=[])
    try:
        told, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _let_go(child)
        trouble = f"nvidia-smi did not answer within {limit_s:g} s: the driver hangs"
        return Gpus(is_there=True, trouble=trouble, names=[])
    if child.returncode != 0:
        first = next((line.strip() for line in told.splitlines() if line.strip()), f"exit code {child.returncode}")
        if "No devices were found" in told:
            return Gpus(is_there=True, trouble=None, names=[])
        return Gpus(is_there=True, trouble=f"nvidia-smi fails: {first[:200]}", names=[])
    return Gpus(is_there=True, trouble=None, names=[_shown(line) for line in told.splitlines() if line.strip()])


def _let_go(child: subprocess.Popen[str]) -> None:
    """Kill it, and do not wait for it: in the kernel's hands it may never end."""
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)  # its own session: what it started goes too
    if child.stdout is not None:
        child.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)


def _shown(line: str) -> str:
    name, *figures = [part.strip() for part in line.split(",")]
    total, used, temperature = [_number(figure) for figure in [*figures, "", "", ""][:3]]
    told = [f"{used / 1024:.1f} of {total / 1024:.1f} GB used"] if total is not None and used is not None else []
    told += [f"{temperature:g} °C"] if temperature is not None else []
    return f"{name} ({', '.join(told)})" if told else name


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
