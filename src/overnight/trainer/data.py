"""From stored rows to what is trained: tokens in a memory-mapped file, a held-out share, and an account of every token.

Rows are read as a stream, encoded and written to an Arrow file inside the attempt directory, which is then mapped: the
memory needed does not grow with the file. No cache of any library is used; our own is in kept.py.

The account: each row is trained, dropped (nothing supervised is left after the cut) or held out; each token of the rows
that are not held out is supervised, masked, truncated or dropped, and the four add up to the total. Tokens of held-out
rows are counted beside it.

Whether a row is held out hangs on its bytes alone; one that an earlier job held out is too, also where this job's
share is smaller (trainer/heldout.py): it is counted beside the others.

Earlier rows that are replayed stand behind the job's own, with numbers that go on; they are counted beside the account.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import trl

from overnight.disk import files
from overnight.domain.config import Settings
from overnight.domain.encoding import Encoded, Encoder, TokenCounts
from overnight.domain.errors import DataError
from overnight.domain.held_out import is_held_out as is_held_out
from overnight.domain.rows import Row, RowProblem, parse_line
from overnight.trainer.heldout import Earlier
from overnight.trainer.kept import Kept
from overnight.trainer.pulse import Pulse
from overnight.trainer.rehearsal import Rehearsal
from overnight.trainer.wishes import Wishes

NAMED_ROWS = 20
"""Dropped rows that are named by their number."""

CHUNK_ROWS = 512
SCHEMA = pyarrow.schema(
    [
        ("input_ids", pyarrow.list_(pyarrow.int32())),
        ("labels", pyarrow.list_(pyarrow.int32())),
        ("row", pyarrow.int64()),
    ]
)


@dataclass(slots=True)
class Account:
    """Where every row and token went."""

    rows: int = 0
    trained: int = 0
    held_out: int = 0
    held_out_earlier: int = 0  # of these: by an earlier job, not by this one's own share
    dropped: int = 0
    left_out: int = 0
    left_out_tokens: int = 0
    tokens: TokenCounts = field(default_factory=TokenCounts)
    held_out_tokens: int = 0
    dropped_rows: list[int] = field(default_factory=list)  # numbers of the first ones, from 1
    longest: int = 0
    highest_token: int = 0
    replayed: int = 0
    replayed_tokens: int = 0
    replayed_wanted: int = 0
    replayed_from: dict[str, int] = field(default_factory=dict)  # rows by earlier data set

    @classmethod
    def of(cls, value: dict[str, Any]) -> Account:
        """Return the account that was kept. Raises KeyError and TypeError where it is none."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value[name] for name in names}
        return cls(**{**known, "tokens": TokenCounts(**known["tokens"])})

    @property
    def stretch(self) -> float:
        """Return how many times longer than the mean the longest row is: so much may a step take longer than usual."""
        kept = self.trained + self.held_out + self.replayed
        total = self.tokens.total + self.held_out_tokens + self.replayed_tokens
        return max(1.0, self.longest * kept / total) if kept and total else 1.0

    def numbers(self) -> dict[str, int]:
        """Return the account as the report holds it: tokens by their plain names, rows with ``rows_`` before it."""
        return {
            "total": self.tokens.total,
            "supervised": self.tokens.supervised,
            "masked": self.tokens.masked,
            "truncated": self.tokens.truncated,
            "dropped": self.tokens.dropped,
            "held_out": self.held_out_tokens,
            "left_out": self.left_out_tokens,
            "replayed": self.replayed_tokens,
            "rows_total": self.rows,
            "rows_trained": self.trained,
            "rows_dropped": self.dropped,
            "rows_held_out": self.held_out,
            "rows_left_out": self.left_out,
            "rows_replayed": self.replayed,
            "rows_held_out_earlier": self.held_out_earlier,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """The data of one job, ready for the trainer."""

    train: Any  # datasets.Dataset: input_ids, labels, row; packed: input_ids, labels, seq_lengths
    held_out: list[dict[str, Any]]
    account: Account


def prepare(
    rows: Path,
    encoder: Encoder,
    settings: Settings,
    *,
    dataset_id: str,
    scratch: Path,
    pulse: Pulse,
    wishes: Wishes,
    left_out: frozenset[int] = frozenset(),
    kept: Kept | None = None,
    rehearsal: Rehearsal | None = None,
    earlier: Earlier | None = None,
) -> Prepared:
    """Encode the stored rows of a job, or take the tokens that an earlier attempt has kept.

    Raises DataError where they are not those that were admitted or nothing supervised is left, AskedToLeave, DiskError.
    """
    path = scratch / "train.arrow"

    def on_block() -> None:
        pulse.beat()
        wishes.obey_at_once()

    known = kept.find(path, on_block=on_block) if kept is not None else None
    if known is not None:
        _require_same(_sha256(rows, on_block), dataset_id)
        account, held_out = Account.of(known), known["held_out_rows"]
    else:
        files.remove_file(path)
        account, held_out = _encode(
            rows, encoder, settings, path, dataset_id=dataset_id, left_out=left_out, earlier=earlier, on_block=on_block,
            rehearsal=rehearsal,
        )  # fmt: skip
        if kept is not None:
            kept.keep(path, {**dataclasses.asdict(account), "held_out_rows": held_out}, on_block=on_block)
    _require_something(account, settings)
    train = datasets.Dataset.from_file(str(path))
    if settings.train.packing:
        train = pack(train, settings.max_length, scratch=scratch)
    return Prepared(train, held_out, account)


def _sha256(path: Path, on_block: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(files.CHUNK_BYTES):
            digest.update(block)
            on_block()
    return digest.hexdigest()


def _encode(
    rows: Path,
    encoder: Encoder,
    settings: Settings,
    path: Path,
    *,
    dataset_id: str,
    left_out: frozenset[int],
    earlier: Earlier | None,
    on_block: Callable[[], None],
    rehearsal: Rehearsal | None = None,
) -> tuple[Account, list[dict[str, Any]]]:
    """Encode rows into a file; return their account and the held-out ones."""
    account = Account()
    held_out: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    try:
        with files.open_new(path) as sink, pyarrow.ipc.new_stream(sink, SCHEMA) as writer:
            for chunk in _chunks(rows, digest.update):
                table = _encode_chunk(chunk, encoder, settings, account, held_out, left_out, earlier)
                writer.write_batch(table)
                on_block()
            if rehearsal is not None:
                _replay(rehearsal, encoder, settings, account, writer, left_out, earlier, on_block)
    except (FileNotFoundError, PermissionError):  # of reading
        raise
    except OSError as error:
        raise files.disk_error(error, path) from error
    _require_same(digest.hexdigest(), dataset_id)
    return account, held_out


def pack(train: Any, max_length: int, *, scratch: Path) -> Any:
    """Put several short rows into one sequence; inside it they never attend to each other."""
    logging.getLogger("datasets").setLevel(logging.ERROR)
    return trl.pack_dataset(
        train.select_columns(["input_ids", "labels"]),
        max_length,
        strategy="bfd",
        map_kwargs={"cache_file_name": str(scratch / "packed.arrow"), "load_from_cache_file": False},
    )


def _chunks(path: Path, on_line: Callable[[bytes], None]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield numbered lines, many at a time; numbers count the stored rows from 1."""
    chunk: list[tuple[int, bytes]] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            on_line(line)
            chunk.append((number, line.rstrip(b"\r\n")))
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _encode_chunk(
    chunk: list[tuple[int, bytes]],
    encoder: Encoder,
    settings: Settings,
    account: Account,
    held_out: list[dict[str, Any]],
    left_out: frozenset[int],
    earlier: Earlier | None,
) -> pyarrow.RecordBatch:
    encoded = encoder.encode_all(
        (_row(number, line) for number, line in chunk),
        max_length=settings.max_length,
        supervise=settings.train.supervise,
    )
    kept: list[tuple[int, Encoded]] = []
    for (number, line), item in zip(chunk, encoded, strict=True):
        account.rows += 1
        if item.input_ids:
            account.longest = max(account.longest, len(item.input_ids))
            account.highest_token = max(account.highest_token, *item.input_ids)
        is_own = is_held_out(line, settings.evaluation.holdout)
        if is_own or (earlier is not None and earlier.hold(line)):
            account.held_out += 1
            account.held_out_earlier += int(not is_own)
            account.held_out_tokens += item.counts.total
            if is_own and len(held_out) < settings.evaluation.max_examples and not item.is_dropped:
                held_out.append({"input_ids": item.input_ids, "labels": item.labels})
            continue
        if number in left_out and not item.is_dropped:
            account.left_out += 1
            account.left_out_tokens += item.counts.total
            kept.append((number, item))  # it keeps its place, and the batches leave it out
            continue
        account.tokens += item.counts
        if item.is_dropped:
            account.dropped += 1
            if len(account.dropped_rows) < NAMED_ROWS:
                account.dropped_rows.append(number)
            continue
        account.trained += 1
        kept.append((number, item))
    return _table(kept)


def _replay(
    rehearsal: Rehearsal,
    encoder: Encoder,
    settings: Settings,
    account: Account,
    writer: Any,
    left_out: frozenset[int],
    earlier: Earlier | None,
    on_block: Callable[[], None],
) -> None:
    """Write the earlier rows that are replayed behind the job's own."""
    number = account.rows

    def take(lines: Sequence[bytes]) -> list[bool]:
        nonlocal number
        encoded = list(
            encoder.encode_all(
                (_row(index, line) for index, line in enumerate(lines, start=number + 1)),
                max_length=settings.max_length,
                supervise=settings.train.supervise,
            )
        )
        usable = [
            not item.is_dropped and not (earlier is not None and earlier.hold(line))
            for line, item in zip(lines, encoded, strict=True)
        ]
        kept: list[tuple[int, Encoded]] = []
        for item, is_usable in zip(encoded, usable, strict=True):
            if not is_usable:
                continue
            number += 1
            kept.append((number, item))
            account.longest = max(account.longest, len(item.input_ids))
            account.highest_token = max(account.highest_token, *item.input_ids)
            if number in left_out:  # it keeps its place, and the batches leave it out
                account.left_out += 1
                account.left_out_tokens += item.counts.total
            else:
                account.replayed_tokens += item.counts.total
        writer.write_batch(_table(kept))
        return usable

    done = rehearsal.replay(account.trained + account.left_out, take, on_block)
    account.replayed, account.replayed_wanted = sum(done.taken.values()), done.wanted
    account.replayed_from = done.taken


def _table(kept: list[tuple[int, Encoded]]) -> pyarrow.RecordBatch:
    columns = [[item.input_ids for _, item in kept], [item.labels for _, item in kept], [number for number, _ in kept]]
    return pyarrow.record_batch(
        [pyarrow.array(column, type=part.type) for column, part in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def _row(number: int, line: bytes) -> Row:
    row = parse_line(line)
    if isinstance(row, RowProblem):
        raise DataError(
            f"Row {number} of the stored data set cannot be read",
            found=row.message,
            expected="rows that were accepted at intake",
            fix="add the file again; overnight validate FILE says more",
        )
    return row


def _require_same(found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            "The stored data set is not the one that was admitted",
            found=f"SHA-256 {found}",
            expected=f"SHA-256 {expected}",
            fix="add the file again; nothing in .overnight/ is for editing",
        )


def _require_something(account: Account, settings: Settings) -> None:
    if account.trained > 0:
        return
    named = ", ".join(map(str, account.dropped_rows))
    if account.held_out and not account.dropped:
        raise DataError(
            "Nothing is left to train: every row is held out for evaluation",
            found=f"{account.held_out} rows, evaluation.holdout {settings.evaluation.holdout}",
            expected="at least one row that is not held out",
            fix="lower evaluation.holdout, or add more rows",
        )
    raise DataError(
        "Nothing is left to learn: no row has a supervised token"
        if account.rows
        else "Nothing is left to learn: the data set has no rows",
        found=f"{account.dropped} rows dropped ({named}{', ...' if account.dropped > NAMED_ROWS else ''}): "
        f"max_length {settings.max_length} cuts off all that train.supervise '{settings.train.supervise}' would learn"
        if account.rows
        else "0 rows",
        expected="at least one row with something to learn inside max_length",
        fix="raise max_length, shorten the prompts, or set train.supervise to all",
    )
