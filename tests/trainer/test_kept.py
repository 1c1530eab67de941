"""Tokens kept from one attempt to the next: the very same ones, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig, merged, sums  # noqa: E402

from overnight.disk.tokenizer import load_encoder  # noqa: E402
from overnight.domain import config  # noqa: E402
from overnight.domain.errors import DataError  # noqa: E402
from overnight.trainer import data, kept  # noqa: E402
from overnight.trainer.kept import Kept  # noqa: E402
from overnight.trainer.pulse import Pulse  # noqa: E402
from overnight.trainer.wishes import Wishes  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
CHANGES: dict[str, Any] = {"evaluation__holdout": 0.2, "max_length": 48}


class Given:
    """One data set, prepared by one attempt after the other."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = Rig(root, **CHANGES)
        self.path = self.rig.rows([*sums(1, 60), {"text": "z" * 90}], "a")
        self.encoded = 0
        encode = data._encode

        def count(*arguments: Any, **named: Any) -> Any:
            self.encoded += 1
            return encode(*arguments, **named)

        monkeypatch.setattr(data, "_encode", count)

    def prepare(self) -> data.Prepared:
        spec = self.rig.spec(1, self.path, dataset_id=self.dataset_id)
        folder = self.rig.place(spec)
        (folder / "output").mkdir()
        return data.prepare(
            self.path, load_encoder(Path(spec.base_model)), config.parse(spec.settings), dataset_id=spec.dataset_id,
            scratch=folder / "output", pulse=Pulse(folder, spec), wishes=Wishes(folder, unwatched_limit_s=1e9),
            kept=self.kept(),
        )  # fmt: skip

    @property
    def dataset_id(self) -> str:
        import hashlib

        if not hasattr(self, "_id"):
            self._id = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return self._id

    def kept(
        self, *, tokenizer: str = "t", rows: str | None = None, left_out: tuple[int, ...] = (), **changes: Any
    ) -> Kept:
        settings = config.parse(merged({**CHANGES, **changes}))
        return kept.kept_in(
            self.rig.layout.tokens,
            dataset_id=rows or self.dataset_id,
            tokenizer=tokenizer,
            settings=settings,
            left_out=left_out,
        )


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(tmp_path, monkeypatch)


def seen(prepared: data.Prepared) -> tuple[Any, ...]:
    return list(prepared.train), prepared.held_out, prepared.account


def test_a_second_attempt_has_the_tokens_of_the_first_without_encoding(given: Given) -> None:
    first = given.prepare()
    second = given.prepare()
    assert given.encoded == 1
    assert seen(second) == seen(first)
    assert first.held_out
    assert first.account.dropped == 0


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # another file: the attempt's own is a second name of it
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-100])


@pytest.mark.parametrize("name", ["arrow", "json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "gone"])
def test_what_was_damaged_is_encoded_again(given: Given, name: str, damage: Callable[[Path], None]) -> None:
    first = given.prepare()
    [path] = given.rig.layout.tokens.glob(f"*.{name}")
    damage(path)
    assert seen(given.prepare()) == seen(first)
    assert given.encoded == 2
    given.prepare()
    assert given.encoded == 2


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": "u"},
        {"rows": "0"},
        {"left_out": (3,)},
        {"max_length": 47},
        {"train__supervise": "all"},
        {"evaluation__holdout": 0.1},
    ],
    ids=str,
)
def test_whatever_tokens_hang_on_is_in_their_name(given: Given, change: dict[str, Any]) -> None:
    assert given.kept(**change).name != given.kept().name
    assert given.kept(train__learning_rate=0.5).name == given.kept().name


def test_the_code_that_makes_tokens_is_in_their_name(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    before = given.kept().name
    monkeypatch.setattr(kept, "CODE", (*kept.CODE, "trainer/fit.py"))
    assert given.kept().name != before


def test_rows_that_were_changed_are_refused_also_where_their_tokens_were_kept(given: Given) -> None:
    given.prepare()
    given.path.write_bytes(given.path.read_bytes().replace(b"user", b"User", 1))
    with pytest.raises(DataError, match="not the one that was admitted"):
        given.prepare()
    assert given.encoded == 1


def test_only_the_newest_are_kept(given: Given) -> None:
    given.prepare()
    given.path.write_bytes(given.path.read_bytes() * 2)
    del given._id
    given.prepare()
    assert len(list(given.rig.layout.tokens.iterdir())) == 2
