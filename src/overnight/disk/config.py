"""Reading and writing config.json: a broken file is told by line and column, a change is durable and keeps the rest.

What is read here is raw JSON; its meaning is judged by domain/config. Nothing here invents a default for a file that is
missing: a workspace without its settings is refused.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.disk import files
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, ConfigError

if TYPE_CHECKING:  # importing the settings costs more than many commands may take to start
    from collections.abc import Iterator

    from overnight.domain.config import Settings

LIMIT_BYTES = 1 << 20
PATIENCE_S = 1.0
"""How long a half-written file is read again before it is refused."""

POLL_S = 0.05
FIX = "mend the file, or change one value with overnight config set KEY VALUE"


def read(layout: Layout) -> Settings:
    """Return the valid settings of a workspace. Raises ConfigError that names every problem."""
    from overnight.domain.config import parse

    return parse(read_raw(layout.config))


def read_raw(path: Path, *, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """Return config.json as it stands, unjudged; a file that is just being written is read again for a moment.

    Raises ConfigError with line and column where it is no JSON object.
    """
    deadline = time.monotonic() + patience_s
    while True:
        before = _facts(path)
        try:
            values = _decode(_read_bytes(path), path)
            if _facts(path) == before:
                return values
            refusal = _changing(path)
        except ConfigError as error:
            refusal = error
        if time.monotonic() >= deadline or not _may_be_half_written(path):
            raise refusal
        time.sleep(POLL_S)


def write(layout: Layout, values: dict[str, Any]) -> None:
    """Replace config.json durably; a link stays a link to the file that is replaced. Raises DiskError."""
    put_text(layout, files.json_bytes(values).decode("utf-8", "surrogateescape"))


def put_text(layout: Layout, text: str) -> None:
    """Replace config.json by a text as it is, durably. Raises DiskError."""
    path = Path(os.path.realpath(layout.config))
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        mode = 0o644
    files.write_durably(path, text.encode("utf-8", "surrogateescape"), mode=mode)


def write_schema(layout: Layout) -> None:
    """Write the JSON Schema that editors use, beside config.json. Raises DiskError."""
    files.write_json_durably(layout.config_schema, json_schema())


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of config.json."""
    from overnight.domain.config import Settings

    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Overnight settings"}


@contextmanager
def changing(layout: Layout, *, holder: dict[str, Any]) -> Iterator[None]:
    """Keep two writers of config.json apart, so that neither loses the other's change. Raises BusyError."""
    lock = files.Lock(layout.state / "config.lock")
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not lock.acquire(holder=holder):
            if time.monotonic() >= deadline:
                raise BusyError("The settings are being changed by somebody else", fix="try again")
            time.sleep(POLL_S)
    except OSError as error:
        raise files.disk_error(error, lock.path) from error
    try:
        yield
    finally:
        lock.release()


def raw_number(layout: Layout, section: str, name: str, default: float) -> float:
    """Return one number of config.json without judging the rest; the default where it cannot be read."""
    try:
        value = read_raw(layout.config, patience_s=0.0)[section][name]
    except (ConfigError, KeyError, TypeError):
        return default
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else default


def _facts(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _may_be_half_written(path: Path) -> bool:
    """Only a regular file can change under us into a good one; a missing one may be between two renames."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _changing(path: Path) -> ConfigError:
    return ConfigError(
        f"{path.name} is being written right now", found=str(path), expected="a file at rest", fix="try again"
    )


def _read_bytes(path: Path) -> bytes:
    """Read a regular file; anything else is refused without being opened (a FIFO would block)."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise ConfigError(
                f"{path.name} is {what}",
                found=str(path),
                expected="a JSON file",
                fix="put the file back in its place",
                code="syntax",
            )
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except PermissionError as error:
        raise ConfigError(
            f"{path.name} cannot be read",
            found=f"{path}: {error.strerror}",
            expected="a file that this user may read",
            fix=f"chmod u+r {path}, or run as its owner",
            code="unreadable",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path.name} cannot be read",
            found=f"{path}: {error.strerror or error}",
            expected="a readable JSON file",
            fix="check the disk, or put the file back",
            code="unreadable",
        ) from error
    if len(data) > LIMIT_BYTES:
        raise _syntax(path, "it is longer than 1 MiB")
    return data


def _missing(path: Path) -> ConfigError:
    dangling = path.is_symlink()
    return ConfigError(
        f"{path.name} is missing",
        found=f"a link to {os.readlink(path)}, which is not there" if dangling else f"no file {path}",
        expected="the settings of this workspace; defaults are never invented for it",
        fix="put it back; .config_lock.json says which values belong to the checkpoints",
        code="missing",
    )


def _syntax(path: Path, why: str, *, line: int | None = None, column: int | None = None) -> ConfigError:
    place = f", line {line}, column {column}" if line is not None else ""
    return ConfigError(
        f"{path.name} is no valid JSON{place}: {why}",
        found=f"{path}" + (f":{line}:{column}" if line is not None else ""),
        expected="one JSON object",
        fix=FIX,
        code="syntax",
    )


def _decode(data: bytes, path: Path) -> dict[str, Any]:
    if not data.strip():
        raise _syntax(path, "it is empty", line=1, column=1)
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise _syntax(path, "it starts with a byte order mark; save it as UTF-8 without one", line=1, column=1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(data, error.start)
        raise _syntax(path, "these bytes are no UTF-8 text", line=line, column=column) from error
    try:
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise _syntax(path, error.msg, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise _syntax(path, "it is nested too deeply") from error
    except ValueError as error:  # NaN, a number of thousands of digits, a key twice
        spot = _find(text, str(error))
        raise _syntax(path, str(error), line=spot[0], column=spot[1]) from error
    if not isinstance(values, dict):
        raise _syntax(path, f"it holds {type(values).__name__}, not an object", line=1, column=1)
    return values


def _place(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset]
    return before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1


def _find(text: str, message: str) -> tuple[int | None, int | None]:
    """Return where the word that a message quotes stands in the text (its last place)."""
    quoted = message.partition("'")[2].partition("'")[0]
    offset = text.rfind(f'"{quoted}"') if f'"{quoted}"' in text else text.rfind(quoted)
    if offset < 0 or not quoted:
        return None, None
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"'{name}' is no JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key '{key}' stands there twice")
        values[key] = value
    return values
