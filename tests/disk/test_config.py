"""config.json on disk: whatever stands there is read, or refused with its place and the reason; never a traceback."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from overnight.disk import config
from overnight.disk.layout import Layout
from overnight.domain.errors import BusyError, ConfigError

VALID = {"model_name": "m", "base_model": "b"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / ".overnight").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(VALID))
    return Layout(tmp_path)


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.read_raw(path, patience_s=0.0)
    assert caught.value.exit_code == 78
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1, column 1: it is empty"),
        (b" \n\n", "line 1, column 1: it is empty"),
        (b'{\n  "seed": 4,\n  "train": {\n}', "line 4, column 2"),
        (b'{"seed": 4,}', "line 1, column 12"),
        (b'{"seed": 4', "line 1, column 11"),
        (b"{'seed': 4}", "line 1, column 2"),
        (b'\xef\xbb\xbf{"seed": 4}', "byte order mark"),
        ('{"seed": 4}'.encode("utf-16"), "byte order mark"),
        (b'{\n"model_name": "\xff\xfe"}', "line 2, column 16: these bytes are no UTF-8"),
        (bytes(range(256)), "no UTF-8"),
        (b'{"seed": NaN}', "'NaN' is no JSON number"),
        (b'{"seed": Infinity}', "'Infinity' is no JSON number"),
        (b'{\n"seed": 1,\n"seed": 2}', "line 3, column 1: the key 'seed' stands there twice"),
        (b"[1, 2]", "it holds list, not an object"),
        (b"7", "it holds int, not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b'{"x": "' + b"a" * (1 << 20) + b'"}', "longer than 1 MiB"),
        (b"\0" * 100, "line 1, column 1"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(layout: Layout, data: bytes, words: str) -> None:
    layout.config.write_bytes(data)
    assert words in str(refusal(layout.config))


def test_a_directory_and_a_fifo_are_refused_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "b")
    assert "is a directory" in str(refusal(tmp_path / "a"))
    assert "no regular file" in str(refusal(tmp_path / "b"))


def test_a_missing_file_and_a_dangling_link_are_refused_and_no_default_is_invented(tmp_path: Path) -> None:
    assert "is missing" in str(refusal(tmp_path / "config.json"))
    (tmp_path / "config.json").symlink_to(tmp_path / "gone.json")
    assert "a link to" in str(refusal(tmp_path / "config.json"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(layout: Layout) -> None:
    layout.config.chmod(0)
    assert "cannot be read" in str(refusal(layout.config))


def test_a_file_that_is_being_written_is_read_when_it_is_whole(layout: Layout) -> None:
    text = json.dumps({**VALID, "seed": 7})

    def write_slowly() -> None:
        with open(layout.config, "w") as file:
            for character in text:
                file.write(character)
                file.flush()
                time.sleep(0.3 / len(text))

    writer = threading.Thread(target=write_slowly)
    writer.start()
    while layout.config.stat().st_size == len(json.dumps(VALID)):
        time.sleep(0.001)
    values = config.read_raw(layout.config)
    writer.join()
    assert values["seed"] == 7


def test_a_file_that_stays_half_written_is_refused_soon(layout: Layout) -> None:
    layout.config.write_text('{"model_name": "m"')
    started = time.monotonic()
    with pytest.raises(ConfigError):
        config.read_raw(layout.config)
    assert config.PATIENCE_S <= time.monotonic() - started < config.PATIENCE_S + 20


def test_valid_settings_are_read_and_invalid_ones_refused(layout: Layout) -> None:
    assert config.read(layout).seed == 42
    layout.config.write_text(json.dumps({**VALID, "seed": "x"}))
    with pytest.raises(ConfigError, match="seed"):
        config.read(layout)


def test_writing_keeps_the_mode_and_a_link(layout: Layout, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.json"
    real.write_text("{}")
    real.chmod(0o600)
    layout.config.unlink()
    layout.config.symlink_to(real)
    config.write(layout, VALID)
    assert layout.config.is_symlink()
    assert json.loads(real.read_text()) == VALID
    assert real.stat().st_mode & 0o777 == 0o600


def test_two_writers_are_kept_apart(layout: Layout) -> None:
    holder = {"pid": 1}
    with config.changing(layout, holder=holder), pytest.raises(BusyError), config.changing(layout, holder=holder):
        pass


@pytest.mark.parametrize("data", ['{"watch": {"grace_s": 5}}', '{"watch": {"grace_s": "5"}}', "{", '{"watch": 3}'])
def test_a_single_number_is_read_from_any_file(layout: Layout, data: str) -> None:
    layout.config.write_text(data)
    assert config.raw_number(layout, "watch", "grace_s", 30.0) in (5.0, 30.0)


def test_the_schema_names_every_section_and_is_valid_json(layout: Layout) -> None:
    config.write_schema(layout)
    schema = json.loads(layout.config_schema.read_text())
    assert {"train", "lora", "watch", "base_model"} <= set(schema["properties"])
    assert schema["required"] == ["model_name", "base_model"]
