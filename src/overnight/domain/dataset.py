"""A dataset: a validated data file; what its validation found.

A file is accepted or rejected as a whole before anything is trained: by the policy "reject" one bad row rejects it, by
"skip" the bad rows are left out. A file without any row that can be trained is always rejected.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

SCHEMA = 1

PROBLEMS_TOLD = 1000
"""Problems listed one by one; beyond that they are only counted."""

BadRows = Literal["reject", "skip"]


class FileCode(StrEnum):
    """What can be wrong with a file as a whole; the codes of lines are in rows.RowCode."""

    EMPTY_FILE = "empty_file"
    NOT_UTF8 = "not_utf8"
    COMPRESSED = "compressed"
    BINARY = "binary"
    JSON_ARRAY = "json_array"
    NOTHING_SUPERVISED = "nothing_supervised"
    NO_CHAT_TEMPLATE = "no_chat_template"
    NO_ROWS_LEFT = "no_rows_left"


FILE_FIXES: dict[FileCode, str] = {
    FileCode.EMPTY_FILE: "add rows, one JSON object a line, and drop the file again",
    FileCode.NOT_UTF8: "save the file as UTF-8",
    FileCode.COMPRESSED: "unpack it first, and drop the .jsonl file",
    FileCode.BINARY: "write one JSON object a line, as text in UTF-8",
    FileCode.JSON_ARRAY: "write one object a line, for example with: jq -c '.[]' OLD > NEW.jsonl",
    FileCode.NOTHING_SUPERVISED: "raise max_length, or shorten the prompts",
    FileCode.NO_CHAT_TEMPLATE: "use an instruct model as base_model, or write the rows as prompt + completion or text",
    FileCode.NO_ROWS_LEFT: "mend the rows that are named",
}
"""What to do about a file that is refused as a whole."""


@dataclass(frozen=True, slots=True)
class LineProblem:
    """One thing wrong in a data file; line 0 stands for the file as a whole."""

    line: int
    column: int
    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures:
    """Tokens of the accepted rows: total = supervised + masked + truncated + dropped."""

    exact: bool  # False: counted on some rows, spread evenly, and scaled up
    total: int
    max: int  # of one row
    p95: int  # 95 of 100 rows are not longer
    over_limit: int  # rows longer than max_length
    supervised: int
    masked: int
    truncated: int
    dropped: int
    rows_counted: int
    rows_dropped: int  # rows in which the cut leaves nothing to learn
    dropped_lines: tuple[int, ...]  # of those, the first ones by line; only where exact
    rows_with_typed_markers: int  # special tokens typed inside messages, read as plain text
    rows_with_forged_markers: int  # the tokenizer makes special tokens of them all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What was found in a data file."""

    ok: bool  # it is accepted, by the policy
    policy: BadRows
    sha256: str  # of the file as it was given
    bytes: int
    rows: int  # lines that are not blank
    accepted: int
    rejected: int
    format: str  # of all accepted rows, "mixed", or "none"
    formats: dict[str, int]
    tokens: TokenFigures | None
    duplicates: int  # rows that repeat an earlier one of the file, byte for byte
    already_trained: int  # rows that an earlier dataset held, byte for byte
    other_answers: int  # rows that ask what another row asks, and are answered otherwise
    problems: tuple[LineProblem, ...]
    problem_counts: dict[str, int]  # by code, exact also where not all are listed
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dataset: str | None = None  # the id, where it was stored

    def to_json(self) -> dict[str, Any]:
        """Return what `overnight validate --json` answers, and what a report holds."""
        value = {"schema": SCHEMA, **asdict(self)}
        value["problems_told"] = len(self.problems)
        value["problems_total"] = sum(self.problem_counts.values())
        return value

    @property
    def reason(self) -> str:
        """Return in one line why the file is rejected, or what is accepted."""
        if self.ok:
            left_out = f", {self.rejected} left out" if self.rejected else ""
            return f"{self.accepted} rows accepted{left_out}"
        if not self.problems:
            return "it holds nothing that can be trained"
        first = self.problems[0]
        place = f"line {first.line}, column {first.column}: " if first.line else ""
        others = sum(self.problem_counts.values()) - 1
        more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
        return f"{place}{first.message} [{first.code}]{more}"


@dataclass(slots=True)
class ProblemList:
    """Problems as they are found: the first ones in full, all of them counted."""

    limit: int = PROBLEMS_TOLD
    told: list[LineProblem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, problem: LineProblem) -> None:
        """Take one more."""
        self.counts[problem.code] = self.counts.get(problem.code, 0) + 1
        if len(self.told) < self.limit:
            self.told.append(problem)

    def add_file_problem(self, code: FileCode, message: str, *, line: int = 0) -> None:
        """Take one about the file as a whole."""
        self.add(LineProblem(line, 1, code.value, message, FILE_FIXES[code]))


def warnings_of(*, rows: int, duplicates: int, already_trained: int, other_answers: int) -> list[str]:
    """Return what a user should know of repeated rows."""
    told: list[str] = []
    if rows > 1 and duplicates == rows - 1:
        told.append(f"all {rows} rows are identical")
    elif duplicates:
        told.append(f"{duplicates} of {rows} rows repeat an earlier row of this file")
    if other_answers:
        told.append(f"{other_answers} rows ask what another row asks, and give another answer")
    if already_trained:
        told.append(f"{already_trained} of {rows} rows were trained before, from an earlier file")
    return told
