"""One pass over a data file: every line judged, hashed, counted, and the good ones handed on.

Memory does not grow with the file: it is read in blocks, a line over the limit is passed over while it is read, and
what is remembered of each row is 16 bytes, on disk from some millions of rows on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from overnight.disk import row_hashes
from overnight.disk.line_blocks import LINE_LIMIT, Block, LongLine, NoText, read_blocks
from overnight.domain.dataset import BadRows, FileCode, LineProblem, ProblemList, TokenFigures, Validation, warnings_of
from overnight.domain.encoding import Encoder, Supervise
from overnight.domain.errors import DataError
from overnight.domain.row_blocks import BlockJudge, JudgedBlock
from overnight.domain.rows import Chat, RowCode, RowProblem, parse_line, problem, prompt_key
from overnight.domain.sampling import RowSample, count_tokens

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""

NO_TOKENIZER = "tokens were not counted: no tokenizer at hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what a file is judged."""

    bad_rows: BadRows = "reject"
    max_length: int = 1024
    supervise: Supervise = "assistant"
    problems_told: int = 1000
    line_limit: int = LINE_LIMIT  # bytes


class Scan:
    """One pass over a file."""

    def __init__(self, rules: Rules, encoder: Encoder | None, *, sink: IO[bytes] | None, scratch: Path | None) -> None:
        self._rules = rules
        self._encoder = encoder
        self._sink = sink
        self._judge = BlockJudge()
        self._hashes = row_hashes.Sorter(scratch)
        self._prompts = row_hashes.Sorter(scratch)
        self._sample = RowSample()
        self._problems = ProblemList(rules.problems_told)
        self._file_hash = hashlib.sha256()
        self._rows_hash = hashlib.sha256()
        self._bytes = 0
        self._rejected = 0
        self._is_text = True
        self._needs_template = False
        self._formats: dict[str, int] = {}

    def close(self) -> None:
        """Let temporary files go."""
        self._hashes.close()
        self._prompts.close()

    @property
    def dataset_id(self) -> str:
        """The SHA-256 of the accepted rows."""
        return self._rows_hash.hexdigest()

    # reading

    def read(self, reader: IO[bytes], progress: Progress | None) -> None:
        """Take the whole file."""
        size = os.fstat(reader.fileno()).st_size
        for item in read_blocks(reader, line_limit=self._rules.line_limit, on_bytes=self._take_bytes):
            if isinstance(item, NoText):
                self._is_text = False
                self._problems.add_file_problem(item.code, item.message, line=1)
            elif isinstance(item, LongLine):
                message = f"the line has more than {item.limit:,} bytes"
                self._reject(item.line, problem(RowCode.LINE_TOO_LONG, message))
            else:
                self._take_block(item)
            if progress is not None:
                progress(self._bytes, max(size, self._bytes))

    def _take_bytes(self, chunk: bytes) -> None:
        self._file_hash.update(chunk)
        self._bytes += len(chunk)

    def _take_block(self, block: Block) -> None:
        num_lines = block.data.count(b"\n")
        judged = self._judge.judge(block.data, num_lines)
        if judged is None or not self._takes_roles(judged):
            self._take_lines(block)
            return
        lines = block.data.split(b"\n")
        lines.pop()
        for format_, count in judged.formats.items():
            self._formats[format_.value] = self._formats.get(format_.value, 0) + count
        self._needs_template |= judged.needs_template
        self._keep(block.data, lines, range(block.first_line, block.first_line + num_lines), judged.prompt_keys)

    def _takes_roles(self, judged: JudgedBlock) -> bool:
        """Return whether the chat template takes every order of roles of a block."""
        encoder = self._encoder
        return encoder is None or all(encoder.refusal_of_roles(roles) is None for roles in judged.roles)

    def _take_lines(self, block: Block) -> None:
        """Judge line by line."""
        lines: list[bytes] = []
        numbers: list[int] = []
        keys: list[int] = []
        for number, line in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
            if not line.strip():
                continue
            row = parse_line(line)
            if self._encoder is not None and not isinstance(row, RowProblem):
                row = self._encoder.refusal(row) or row
            if isinstance(row, RowProblem):
                self._reject(number, row)
                continue
            lines.append(line)
            numbers.append(number)
            keys.append(prompt_key(row))
            self._formats[row.format.value] = self._formats.get(row.format.value, 0) + 1
            self._needs_template |= isinstance(row, Chat) and row.needs_template
        if lines:
            self._keep(b"\n".join((*lines, b"")), lines, numbers, keys)

    def _keep(self, data: bytes, lines: list[bytes], numbers: Sequence[int], keys: list[int]) -> None:
        self._hashes.add(row_hashes.of_lines(lines))
        self._prompts.add(np.array(keys, dtype=np.int64).view(np.uint64))
        self._sample.add(numbers, lines)
        if self._sink is not None:
            self._sink.write(data)
            self._rows_hash.update(data)

    def _reject(self, line: int, found: RowProblem) -> None:
        self._rejected += 1
        self._problems.add(LineProblem(line, found.column, found.code.value, found.message, found.fix))

    # the verdict

    def finish(self, trained: Sequence[Path], hashes_file: Path | None) -> Validation:
        """Draw up the verdict; write the sorted hashes of the rows to ``hashes_file``."""
        accepted = self._hashes.total
        num_distinct, num_known = self._sort_hashes(trained, hashes_file)
        num_prompts = sum(row_hashes.count_distinct(part) for part in self._prompts.sorted_parts())
        if self._is_text and not accepted:
            if not self._rejected:
                self._problems.add_file_problem(FileCode.EMPTY_FILE, "the file has no rows: it is empty or blank")
            elif self._rules.bad_rows == "skip":
                self._problems.add_file_problem(FileCode.NO_ROWS_LEFT, "every row is bad: nothing is left to train")
        tokens, notes = self._count_tokens() if accepted else (None, [])
        warnings = warnings_of(
            rows=accepted,
            duplicates=accepted - num_distinct,
            already_trained=num_known,
            other_answers=max(0, num_distinct - num_prompts),
        )
        warnings += _token_warnings(tokens) if tokens is not None else []
        file_problems = any(code in self._problems.counts for code in FileCode)
        bad_rows = self._rejected > 0 and self._rules.bad_rows == "reject"
        return Validation(
            ok=accepted > 0 and not file_problems and not bad_rows,
            policy=self._rules.bad_rows,
            sha256=self._file_hash.hexdigest(),
            bytes=self._bytes,
            rows=accepted + self._rejected,
            accepted=accepted,
            rejected=self._rejected,
            format="mixed" if len(self._formats) > 1 else next(iter(self._formats), "none"),
            formats=dict(sorted(self._formats.items())),
            tokens=tokens,
            duplicates=accepted - num_distinct,
            already_trained=num_known,
            other_answers=max(0, num_distinct - num_prompts),
            problems=tuple(self._problems.told),
            problem_counts=dict(sorted(self._problems.counts.items())),
            warnings=tuple(warnings),
            notes=tuple(notes),
        )

    def _sort_hashes(self, trained: Sequence[Path], hashes_file: Path | None) -> tuple[int, int]:
        """Return how many different rows there are, and how many were trained before; write them down sorted."""
        stored = row_hashes.opened(trained)
        num_distinct = num_known = 0
        with contextlib.ExitStack() as stack:
            write = None
            if hashes_file is not None:
                write = stack.enter_context(row_hashes.npy_writer(hashes_file, self._hashes.total))
            for part in self._hashes.sorted_parts():
                num_distinct += row_hashes.count_distinct(part)
                num_known += row_hashes.count_known(part, stored)
                if write is not None:
                    write(part)
        return num_distinct, num_known

    def _count_tokens(self) -> tuple[TokenFigures | None, list[str]]:
        if self._encoder is None:
            return None, [NO_TOKENIZER]
        if self._needs_template and not self._encoder.has_template:
            message = "the base model's tokenizer has no chat template, and rows are conversations"
            self._problems.add_file_problem(FileCode.NO_CHAT_TEMPLATE, message)
            return None, ["tokens were not counted: no chat template"]
        try:
            figures = count_tokens(
                self._sample, self._encoder, max_length=self._rules.max_length, supervise=self._rules.supervise
            )
        except DataError as error:
            return None, [f"tokens were not counted: {error.what}: {error.found}"]
        if figures.exact and figures.rows_dropped == figures.rows_counted:
            message = f"the cut at max_length {self._rules.max_length} leaves nothing to learn in any row"
            self._problems.add_file_problem(FileCode.NOTHING_SUPERVISED, message)
        notes = [] if figures.exact else [f"tokens are estimated from {figures.rows_counted} rows spread over the file"]
        return figures, notes


def _token_warnings(tokens: TokenFigures) -> list[str]:
    about = "" if tokens.exact else "about "
    told: list[str] = []
    if tokens.rows_dropped:
        named = ", ".join(map(str, tokens.dropped_lines[:10]))
        where = f" (line {named}{', ...' if len(tokens.dropped_lines) > 10 else ''})" if named else ""
        told.append(f"{about}{tokens.rows_dropped} rows are not trained: max_length cuts their answers off{where}")
    if tokens.over_limit > tokens.rows_dropped:
        told.append(f"{about}{tokens.over_limit - tokens.rows_dropped} rows are longer than max_length and are cut")
    if tokens.rows_with_typed_markers:
        told.append(
            f"{about}{tokens.rows_with_typed_markers} rows hold special tokens inside messages; they are read as text"
        )
    if tokens.rows_with_forged_markers:
        told.append(
            f"in {about}{tokens.rows_with_forged_markers} rows the tokenizer takes such text for special tokens"
        )
    return told
