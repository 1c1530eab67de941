"""Data files are judged as streams, in bounded memory, and stored by their content."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overnight.disk import dataset_files, datasets
from overnight.disk.scanning import Rules
from overnight.domain.dataset import FileCode, Validation
from overnight.domain.errors import DataError, DiskError
from overnight.domain.rows import RowCode, Text
from tokenizing_rig import CHATML, GEMMA, encoder_with

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def line(value: Any = CHAT) -> bytes:
    return json.dumps(value).encode() + b"\n"


def texts(*contents: str) -> bytes:
    return b"".join(line({"text": content}) for content in contents)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder


def validate(source: Path, content: bytes | None = None, **rules: Any) -> Validation:
    if content is not None:
        source.write_bytes(content)
    return datasets.validate(source, rules=Rules(**rules), encoder=None)


def store(source: Path, stored: Path, content: bytes, **rules: Any) -> Validation:
    source.write_bytes(content)
    return datasets.store(source, stored, rules=Rules(**rules), encoder=None)


def codes(validation: Validation) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in validation.problems]


# lines


@pytest.mark.parametrize("place", [1, 101, 5000])
@pytest.mark.parametrize("padding", [0, 500], ids=["short rows", "over many blocks"])
def test_a_bad_line_is_named_by_its_number(source: Path, place: int, padding: int) -> None:
    lines = [line({"text": f"{number}" + "x" * padding}) for number in range(1, 5001)]
    lines[place - 1] = b'{"text": "cut\n'
    validation = validate(source, b"".join(lines))
    assert codes(validation) == [(place, RowCode.BAD_JSON)]
    assert (validation.rows, validation.accepted, validation.rejected) == (5000, 4999, 1)
    assert not validation.ok
    assert f"line {place}, " in validation.reason


def test_a_last_line_that_is_cut_is_named(source: Path) -> None:
    whole = line() * 3
    assert codes(validate(source, whole[:-10])) == [(3, RowCode.BAD_JSON)]


def test_bad_rows_are_left_out_where_the_policy_is_skip(source: Path, stored: Path) -> None:
    validation = store(source, stored, texts("a") + b"{bad\n" + texts("b"), bad_rows="skip")
    assert validation.ok
    assert (validation.accepted, validation.rejected) == (2, 1)
    assert validation.dataset is not None
    assert (stored / validation.dataset / "rows.jsonl").read_bytes() == texts("a", "b")


def test_a_file_of_bad_rows_only_is_rejected_also_where_they_are_skipped(source: Path) -> None:
    validation = validate(source, b"{bad\n", bad_rows="skip")
    assert not validation.ok
    assert FileCode.NO_ROWS_LEFT in validation.problem_counts


ENDINGS = {
    "windows": (b'{"text":"a"}\r\n{"text":"b"}\r\n', 2, b'{"text":"a"}\n{"text":"b"}\n'),
    "mixed": (b'{"text":"a"}\r\n{"text":"b"}\n', 2, b'{"text":"a"}\n{"text":"b"}\n'),
    "no final line feed": (b'{"text":"a"}\n{"text":"b"}', 2, b'{"text":"a"}\n{"text":"b"}\n'),
    "no final line feed, windows": (b'{"text":"a"}\r\n{"text":"b"}\r', 2, b'{"text":"a"}\n{"text":"b"}\n'),
    "byte order mark": (b'\xef\xbb\xbf{"text":"a"}\n', 1, b'{"text":"a"}\n'),
    "blank lines": (b'\n\n{"text":"a"}\n  \t\r\n\n{"text":"b"}\n\n\n', 2, b'{"text":"a"}\n{"text":"b"}\n'),
    "blanks around": (b'  {"text":"a"}  \n', 1, b'  {"text":"a"}  \n'),
    "unicode line ends inside": ('{"text":"a\u2028b\u0085c"}\n'.encode(), 1, '{"text":"a\u2028b\u0085c"}\n'.encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_line_ends_are_decided(source: Path, stored: Path, name: str) -> None:
    content, rows, kept = ENDINGS[name]
    validation = store(source, stored, content)
    assert validation.ok
    assert (validation.rows, validation.accepted) == (rows, rows)
    assert validation.dataset == hashlib.sha256(kept).hexdigest()
    assert (stored / validation.dataset / "rows.jsonl").read_bytes() == kept
    assert validation.sha256 == hashlib.sha256(content).hexdigest()


def test_line_numbers_count_blank_lines(source: Path) -> None:
    assert codes(validate(source, b"\n\r\n" + texts("a") + b"\n{bad\n")) == [(5, RowCode.BAD_JSON)]


def test_old_mac_line_ends_are_told(source: Path) -> None:
    assert codes(validate(source, b'{"text":"a"}\r{"text":"b"}\r')) == [(1, RowCode.BAD_JSON)]


FILES = {
    "empty": (b"", FileCode.EMPTY_FILE),
    "blank lines": (b"\n \r\n\t\n", FileCode.EMPTY_FILE),
    "byte order mark only": (b"\xef\xbb\xbf", FileCode.EMPTY_FILE),
    "utf-16 with a mark": ('{"text":"a"}\n'.encode("utf-16"), FileCode.NOT_UTF8),
    "utf-16 without a mark": ('{"text":"a"}\n'.encode("utf-16-le"), FileCode.NOT_UTF8),
    "utf-16, the other order": ('{"text":"a"}\n'.encode("utf-16-be"), FileCode.NOT_UTF8),
    "utf-32": ('{"text":"a"}\n'.encode("utf-32"), FileCode.NOT_UTF8),
    "zeros": (b"\x00" * 5000, FileCode.BINARY),
    "gzip": (gzip.compress(b'{"text":"a"}\n'), FileCode.COMPRESSED),
    "zip": (b"PK\x03\x04" + b"x" * 50, FileCode.COMPRESSED),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"x" * 50, FileCode.COMPRESSED),
    "a json array": (b'[\n  {"text": "a"},\n  {"text": "b"}\n]\n', FileCode.JSON_ARRAY),
    "a json array, other style": (b'[{"text": "a"},\n{"text": "b"}]\n', FileCode.JSON_ARRAY),
    "parquet": (b"PAR1" + b"x" * 50, FileCode.COMPRESSED),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_any_row_is_rejected_with_one_reason(source: Path, stored: Path, name: str) -> None:
    content, code = FILES[name]
    validation = store(source, stored, content)
    assert not validation.ok
    assert validation.dataset is None
    assert validation.problem_counts == {code.value: 1}
    assert validation.problems[0].fix
    assert validation.sha256 == hashlib.sha256(content).hexdigest()
    assert list(stored.iterdir()) == []


def test_a_compressed_bomb_is_never_unpacked(source: Path) -> None:
    with gzip.open(source, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(b"\x00" * (1 << 20))
    assert source.stat().st_size < 1 << 20
    found = measure(source)
    assert found["codes"] == {FileCode.COMPRESSED: 1}
    assert found["rss_mb"] < 100


def test_zero_bytes_inside_are_named_by_line(source: Path) -> None:
    assert codes(validate(source, texts("a") + b'{"text":"\x00"}\n\x00\x00\n')) == [
        (2, RowCode.BAD_JSON),
        (3, RowCode.BAD_JSON),
    ]


HOSTILE = {
    "deep": (b"[" * 100_000, RowCode.TOO_DEEP),
    "digits": (b'{"text":"a","n":' + b"9" * 5000 + b"}", RowCode.NUMBER_TOO_LARGE),
    "nan": (b'{"text":"a","n":NaN}', RowCode.NAN_LITERAL),
    "duplicate keys": (b'{"text":"a","text":"b"}', RowCode.DUPLICATE_KEY),
    "not utf-8": (b'{"text":"\xff\xfe"}', RowCode.NOT_UTF8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_are_rejected_by_number_among_good_ones(source: Path, name: str) -> None:
    raw, code = HOSTILE[name]
    validation = validate(source, texts("a") * 50 + raw + b"\n" + texts("b") * 50)
    assert codes(validation) == [(51, code)]
    assert validation.accepted == 100


def test_problems_are_told_up_to_a_limit_and_counted_beyond(source: Path) -> None:
    validation = validate(source, b"{bad\n" * 50 + b"[]\n" * 5, problems_told=10)
    assert len(validation.problems) == 10
    assert validation.problem_counts == {RowCode.BAD_JSON: 50, RowCode.NOT_OBJECT: 5}
    assert validation.to_json()["problems_total"] == 55
    assert "54 more problems" in validation.reason


def test_all_formats_may_stand_in_one_file(source: Path) -> None:
    content = line() + texts("t") + line({"prompt": "p", "completion": "c"}) + line({"instruction": "i", "output": "o"})
    validation = validate(source, content)
    assert validation.ok
    assert validation.format == "mixed"
    assert validation.formats == {"instruction": 1, "messages": 1, "prompt_completion": 1, "text": 1}


def test_a_line_that_is_an_array_is_named_among_good_ones(source: Path) -> None:
    assert codes(validate(source, b'[{"text":"a"}]\n' + texts("b"))) == [(1, RowCode.NOT_OBJECT)]


# repeated rows


def test_exact_duplicates_are_counted(source: Path) -> None:
    validation = validate(source, texts("a", "b", "a", "a"))
    assert validation.duplicates == 2
    assert any("2 of 4 rows repeat" in warning for warning in validation.warnings)


def test_a_file_of_one_row_over_and_over_is_told(source: Path) -> None:
    assert any("all 64 rows are identical" in warning for warning in validate(source, texts("a") * 64).warnings)


def test_the_same_question_with_other_answers_is_told(source: Path) -> None:
    rows = [{"messages": [CHAT["messages"][0], {"role": "assistant", "content": said}]} for said in "abc"]
    validation = validate(source, b"".join(map(line, [*rows, rows[0], {"prompt": "p", "completion": "c"}])))
    assert (validation.other_answers, validation.duplicates) == (2, 1)
    assert any("another answer" in warning for warning in validation.warnings)


def test_rows_trained_before_are_counted(source: Path, stored: Path) -> None:
    known = []
    for content in (texts("a", "b"), texts("c")):
        first = store(source, stored, content)
        assert first.dataset is not None
        known.append(dataset_files.find(stored, first.dataset).hashes_file)
    source.write_bytes(texts("b", "c", "c", "d"))
    missing = stored / "gone" / "fingerprints.npy"
    validation = datasets.validate(source, rules=Rules(), encoder=None, trained=[*known, missing])
    assert validation.already_trained == 3
    assert any("3 of 4 rows were trained before" in warning for warning in validation.warnings)


# storing


def test_the_same_rows_are_stored_once(source: Path, stored: Path) -> None:
    first = store(source, stored, texts("a"))
    second = store(source, stored, texts("a").replace(b"\n", b"\r\n"))
    assert first.dataset == second.dataset == hashlib.sha256(texts("a")).hexdigest()
    assert [path.name for path in stored.iterdir()] == [first.dataset]


def test_what_is_stored_is_whole_and_its_own(source: Path, stored: Path) -> None:
    validation = store(source, stored, texts("b", "a", "b"))
    assert validation.dataset is not None
    dataset = dataset_files.find(stored, validation.dataset)
    assert dataset_files.is_whole(dataset)
    assert list(datasets.rows(dataset.rows_file)) == [Text("b"), Text("a"), Text("b")]
    hashes = np.load(dataset.hashes_file)
    assert len(hashes) == 3
    assert np.all(hashes[1:] >= hashes[:-1])
    assert json.loads((dataset.folder / "report.json").read_text())["accepted"] == 3
    assert os.stat(dataset.rows_file).st_ino != os.stat(source).st_ino
    source.write_bytes(b"edited afterwards")
    assert dataset_files.is_whole(dataset)


def test_a_hard_link_to_the_source_changes_nothing_stored(source: Path, stored: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.write_bytes(texts("a"))
    os.link(origin, source)
    validation = datasets.store(source, stored, rules=Rules(), encoder=None)
    with open(origin, "r+b") as file:
        file.write(b"{{{{")
    assert validation.dataset is not None
    assert dataset_files.is_whole(dataset_files.find(stored, validation.dataset))


def test_a_stored_dataset_that_was_damaged_is_replaced_when_the_file_comes_again(source: Path, stored: Path) -> None:
    first = store(source, stored, texts("a"))
    assert first.dataset is not None
    dataset = dataset_files.find(stored, first.dataset)
    dataset.rows_file.write_bytes(b'{"text": "somebody was here"}')
    assert not dataset_files.is_whole(dataset)
    store(source, stored, texts("a"))
    assert dataset_files.is_whole(dataset)
    assert [path.name for path in stored.iterdir()] == [first.dataset]


def test_a_stored_row_that_is_damaged_is_told_when_read(source: Path, stored: Path) -> None:
    validation = store(source, stored, texts("a", "b"))
    assert validation.dataset is not None
    path = dataset_files.find(stored, validation.dataset).rows_file
    path.write_bytes(texts("a") + b"{\n")
    with pytest.raises(DataError, match="damaged") as caught:
        list(datasets.rows(path))
    assert "line 2" in str(caught.value.found)


def test_leftovers_of_crashes_are_removed(source: Path, stored: Path) -> None:
    (stored / ".incoming-1-x").mkdir()
    (stored / ".incoming-1-x" / "rows.jsonl").write_bytes(b"half")
    kept = store(source, stored, texts("a")).dataset
    datasets.clean_up(stored)
    assert [path.name for path in stored.iterdir()] == [kept]


def test_a_full_disk_is_told_and_leaves_nothing(source: Path, stored: Path) -> None:
    source.write_bytes(texts("x" * 100) * 50_000)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from overnight.disk import datasets; from overnight.disk.scanning import Rules\n"
        "from overnight.domain.errors import DiskError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: datasets.store(Path(sys.argv[1]), Path(sys.argv[2]), rules=Rules(), encoder=None)\n"
        "except DiskError as error: print(error.found)"
    )
    done = subprocess.run([sys.executable, "-c", code, source, stored], capture_output=True, text=True, check=True)
    assert "file size limit" in done.stdout
    assert list(stored.iterdir()) == []


# what is no regular file


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path, stored: Path) -> None:
    fifo, listening, folder, dangling = (tmp_path / name for name in ("fifo", "socket", "folder", "dangling"))
    os.mkfifo(fifo)
    folder.mkdir()
    dangling.symlink_to(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        for path in (fifo, listening, folder, dangling, Path("/dev/zero")):
            with pytest.raises(OSError):
                datasets.validate(path, rules=Rules(), encoder=None)
            with pytest.raises((OSError, DiskError)):
                datasets.store(path, stored, rules=Rules(), encoder=None)
    assert list(stored.iterdir()) == []


def test_a_link_is_followed_where_the_user_names_it_and_not_when_stored(source: Path, stored: Path) -> None:
    source.write_bytes(texts("a"))
    link = source.with_name("link.jsonl")
    link.symlink_to(source)
    assert datasets.validate(link, rules=Rules(), encoder=None).ok
    with pytest.raises(OSError):
        datasets.store(link, stored, rules=Rules(), encoder=None)


# tokens


def test_tokens_of_a_small_file_are_counted_exactly(source: Path) -> None:
    source.write_bytes(line() * 3 + texts("abc"))
    encoder = encoder_with(CHATML)
    tokens = datasets.validate(source, rules=Rules(), encoder=encoder).tokens
    assert tokens is not None
    assert tokens.exact
    expected = [
        encoder.encode(row, max_length=1024, supervise="assistant").counts.total for row in datasets.rows(source)
    ]
    assert tokens.total == sum(expected) == tokens.supervised + tokens.masked
    assert tokens.max == max(expected)
    assert tokens.rows_counted == 4


def test_tokens_of_a_large_file_are_estimated_and_said_to_be(source: Path) -> None:
    rows = [line({"text": "x" * (20 + number % 7)}) for number in range(1000)]
    source.write_bytes(b"".join(rows) * 150)  # 5 MB
    tokens = datasets.validate(source, rules=Rules(max_length=22), encoder=encoder_with(None)).tokens
    assert tokens is not None
    assert not tokens.exact
    assert tokens.rows_counted < 5000
    assert tokens.total == tokens.supervised + tokens.masked + tokens.truncated + tokens.dropped
    assert tokens.total == pytest.approx(150_000 * 24, rel=0.01)
    assert tokens.max == 27
    assert tokens.over_limit == pytest.approx(150_000 * 5 / 7, rel=0.05)


def test_without_a_tokenizer_tokens_are_null_with_a_note(source: Path) -> None:
    validation = validate(source, texts("a"))
    assert validation.ok
    assert validation.tokens is None
    assert any("no tokenizer" in note for note in validation.notes)


def test_rows_whose_answers_are_cut_off_are_counted_and_named(source: Path) -> None:
    long = {"messages": [{"role": "user", "content": "q" * 200}, {"role": "assistant", "content": "a"}]}
    source.write_bytes(line() + line(long) + line())
    validation = datasets.validate(source, rules=Rules(max_length=100), encoder=encoder_with(CHATML))
    assert validation.ok
    assert validation.tokens is not None
    assert (validation.tokens.rows_dropped, validation.tokens.dropped_lines) == (1, (2,))
    assert any("line 2" in warning for warning in validation.warnings)


def test_a_file_in_which_nothing_would_be_learnt_is_rejected(source: Path) -> None:
    long = {"messages": [{"role": "user", "content": "q" * 200}, {"role": "assistant", "content": "a"}]}
    source.write_bytes(line(long) * 3)
    validation = datasets.validate(source, rules=Rules(max_length=100), encoder=encoder_with(CHATML))
    assert not validation.ok
    assert validation.problem_counts == {FileCode.NOTHING_SUPERVISED: 1}


def test_conversations_for_a_model_without_a_template_are_rejected_with_the_fix(source: Path) -> None:
    source.write_bytes(line() * 3)
    validation = datasets.validate(source, rules=Rules(), encoder=encoder_with(None))
    assert validation.problem_counts == {FileCode.NO_CHAT_TEMPLATE: 1}
    source.write_bytes(texts("a") + line({"instruction": "i", "output": "o"}))
    assert datasets.validate(source, rules=Rules(), encoder=encoder_with(None)).ok


def test_rows_that_the_template_refuses_are_named_before_training(source: Path) -> None:
    system = {"messages": [{"role": "system", "content": "s"}, *CHAT["messages"]]}
    source.write_bytes(line() * 10 + line(system) + line() * 10)
    validation = datasets.validate(source, rules=Rules(), encoder=encoder_with(GEMMA, eos="<end_of_turn>"))
    assert codes(validation) == [(11, RowCode.TEMPLATE_REFUSED)]


def test_markers_typed_inside_messages_are_told(source: Path) -> None:
    source.write_bytes(line({"messages": [{"role": "user", "content": "<|im_end|>"}, CHAT["messages"][1]]}))
    validation = datasets.validate(source, rules=Rules(), encoder=encoder_with(CHATML))
    assert any("read as text" in warning for warning in validation.warnings)


# bounds

MEASURE = """
import json, sys
from pathlib import Path
from overnight.disk import dataset_files, datasets
from overnight.disk.scanning import Rules
validation = datasets.validate(Path(sys.argv[1]), rules=Rules(), encoder=None)
assert "torch" not in sys.modules
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"rss_mb": int(peak.split()[1]) / 1024, "rows": validation.rows,
                  "duplicates": validation.duplicates,
                  "codes": validation.problem_counts, "lines": [problem.line for problem in validation.problems]}))
"""


def measure(path: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.mark.parametrize("size", [300 << 20, pytest.param(3 << 30, marks=pytest.mark.slow)], ids=["300 MB", "3 GB"])
def test_a_line_without_end_is_passed_over_in_little_memory(source: Path, size: int) -> None:
    with open(source, "wb") as file:
        file.write(texts("a") + b'{"text": "')
        file.truncate(size)  # a hole: zeros that take no disk
        file.seek(size)
        file.write(b"\n" + texts("b"))
    found = measure(source)
    assert found["codes"] == {RowCode.LINE_TOO_LONG: 1}
    assert found["lines"] == [2]
    assert found["rows"] == 3
    assert found["rss_mb"] < 200


def test_memory_does_not_grow_with_the_file(source: Path) -> None:
    block = b"".join(line({"text": f"row {number}"}) for number in range(20_000))
    sizes = []
    for blocks in (5, 60):
        source.write_bytes(block * blocks)
        found = measure(source)
        assert found["duplicates"] == 20_000 * (blocks - 1)
        sizes.append(found["rss_mb"])
    assert sizes[1] - sizes[0] < 100
    assert sizes[1] < 200


def test_a_long_line_in_the_midst_costs_only_itself(source: Path) -> None:
    content = texts("a") + texts("x" * 3000) + texts("b") + texts("y" * 3000)
    validation = validate(source, content, line_limit=1000)
    assert codes(validation) == [(2, RowCode.LINE_TOO_LONG), (4, RowCode.LINE_TOO_LONG)]
    assert validation.accepted == 2


def test_progress_is_told_to_the_end(source: Path) -> None:
    source.write_bytes(texts("x" * 1000) * 2000)
    told: list[tuple[int, int]] = []
    datasets.validate(source, rules=Rules(), encoder=None, progress=lambda done, size: told.append((done, size)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == source.stat().st_size
