"""Earlier rows trained beside a job's own: counted, never held-out ones, and exact through every kill."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rig import Rig, sums  # noqa: E402

from overnight.disk.tokenizer import load_encoder  # noqa: E402
from overnight.domain import config  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.domain.errors import DataError  # noqa: E402
from overnight.domain.held_out import is_held_out  # noqa: E402
from overnight.domain.rehearsal import Source  # noqa: E402
from overnight.trainer import data  # noqa: E402
from overnight.trainer.kept import kept_in  # noqa: E402
from overnight.trainer.pulse import Pulse  # noqa: E402
from overnight.trainer.rehearsal import rehearsal_of  # noqa: E402
from overnight.trainer.wishes import Wishes  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def store(rig: Rig, rows: list[Any]) -> str:
    """Store rows by their content, as the intake does; return their id."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    identity = hashlib.sha256(text.encode()).hexdigest()
    rig.rows(rows, identity)
    return identity


def sources(*identities: str, **changes: Any) -> list[dict[str, object]]:
    return [asdict(Source(dataset=identity, **changes)) for identity in identities]


class Given:
    """Two earlier data sets, and a job that replays rows of them."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.rig = Rig(root, **{"train__replay": 0.5, **changes})
        self.first, self.second = store(self.rig, sums(1, 40)), store(self.rig, sums(2, 40))
        self.own = store(self.rig, sums(3, 30))
        self.encoder = load_encoder(root / ".overnight" / "base" / "tiny")

    def prepare(self, rehearsal: list[dict[str, object]], **changes: Any) -> data.Prepared:
        spec = self.rig.spec(3, self.rig.layout.rows(self.own), rehearsal=rehearsal, **changes)
        folder = self.rig.place(spec)
        (folder / "output").mkdir()
        settings = config.parse(spec.settings)
        found = rehearsal_of(spec, settings)
        return data.prepare(
            Path(spec.dataset), self.encoder, settings, dataset_id=spec.dataset_id, scratch=folder / "output",
            pulse=Pulse(folder, spec), wishes=Wishes(folder, unwatched_limit_s=1e9), rehearsal=found,
            left_out=frozenset(spec.left_out),
            kept=kept_in(
                self.rig.layout.tokens, dataset_id=spec.dataset_id, tokenizer="t", settings=settings,
                left_out=spec.left_out, rehearsal=found.fingerprint if found is not None else "",
            ),
        )  # fmt: skip

    def lines(self, identity: str) -> list[bytes]:
        return self.rig.layout.rows(identity).read_bytes().splitlines()

    def replayed(self, prepared: data.Prepared) -> list[list[int]]:
        return [row["input_ids"] for row in prepared.train if row["row"] > prepared.account.rows]

    def tokens_of(self, lines: list[bytes]) -> list[list[int]]:
        found = self.encoder.encode_all((data._row(1, line) for line in lines), max_length=64, supervise="assistant")
        return [list(item.input_ids) for item in found]


def test_a_share_of_earlier_rows_stands_behind_the_job_s_own_and_is_counted(tmp_path: Path) -> None:
    given = Given(tmp_path)
    prepared = given.prepare(sources(given.first, given.second))
    account = prepared.account
    assert account.replayed_from == {given.first: 15, given.second: 15}
    assert len(prepared.train) == 60
    assert [row["row"] for row in prepared.train] == list(range(1, 61))
    earlier = given.tokens_of(given.lines(given.first) + given.lines(given.second))
    assert all(tokens in earlier for tokens in given.replayed(prepared))
    numbers = account.numbers()
    assert (numbers["rows_total"], numbers["rows_trained"], numbers["rows_replayed"]) == (30, 30, 30)
    assert numbers["replayed"] == sum(len(tokens) for tokens in given.replayed(prepared))
    plain = given.prepare([]).account.numbers()
    assert {**numbers, "rows_replayed": 0, "replayed": 0} == plain  # the job's own account is not touched


def test_the_second_attempt_takes_the_same_rows_with_and_without_kept_tokens(tmp_path: Path) -> None:
    given = Given(tmp_path)
    asked = sources(given.first, given.second)
    first = given.prepare(asked)
    kept = given.prepare(asked)
    for path in given.rig.layout.tokens.iterdir():
        path.unlink()
    anew = given.prepare(asked)
    assert list(first.train) == list(kept.train) == list(anew.train)
    assert first.account == kept.account == anew.account
    assert given.replayed(given.prepare(sources(given.second, given.first))) != given.replayed(first)


@pytest.mark.parametrize(("then", "now"), [(0.3, 0.0), (0.0, 0.3), (0.2, 0.3)])
def test_what_was_held_out_then_or_is_now_is_never_replayed(tmp_path: Path, then: float, now: float) -> None:
    given = Given(tmp_path, train__replay=0.9, evaluation__holdout=now)
    prepared = given.prepare(sources(given.first, given.second, holdout=then))
    lines = given.lines(given.first) + given.lines(given.second)
    held = given.tokens_of([line for line in lines if is_held_out(line, max(then, now))])
    free = given.tokens_of([line for line in lines if not is_held_out(line, max(then, now))])
    assert len(held) > 10
    assert sorted(given.replayed(prepared)) == sorted(free)  # every other row was wanted
    assert prepared.account.replayed < prepared.account.replayed_wanted


def test_rows_that_gave_no_number_and_rows_with_nothing_to_learn_give_their_place_to_others(tmp_path: Path) -> None:
    given = Given(tmp_path, max_length=64)
    too_long = [{"messages": [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "y"}]}] * 3
    mixed = [row for index, row in enumerate(sums(9, 30)) for row in ([too_long[0], row] if index < 20 else [row])]
    third = store(given.rig, [{**row, "id": index} for index, row in enumerate(mixed)])
    prepared = given.prepare(sources(third, left_out=[50, 49]))
    assert prepared.account.replayed == 28  # 50 rows, 20 of which are cut to nothing, and two were left out
    assert given.tokens_of([given.lines(third)[49]])[0] not in given.replayed(prepared)
    fewer = given.prepare(sources(given.first, third))
    assert fewer.account.replayed_from == {given.first: 15, third: 15}


@pytest.mark.parametrize("damage", ["gone", "edited"])
def test_an_earlier_data_set_that_is_not_whole_any_more_is_refused(tmp_path: Path, damage: str) -> None:
    given = Given(tmp_path)
    path = given.rig.layout.rows(given.second)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"user", b"User", 1))
    with pytest.raises(DataError, match="earlier data set"):
        given.prepare(sources(given.first, given.second))


def one_job(root: Path, fault: str | None, **changes: Any) -> tuple[dict[str, str], Any]:
    rig = Rig(root, train__replay=0.4, train__epochs=2, lora__dropout=0.1, checkpoint__every_steps=2, **changes)
    identities = [store(rig, sums(job, 18)) for job in (1, 2, 3)]
    report = rig.train(1, rig.layout.rows(identities[2]), fault=fault, rehearsal=sources(*identities[:2]))
    return rig.state(), report


@pytest.mark.parametrize(
    "changes",
    [{"train__gradient_accumulation_steps": 2}, {"train__packing": True, "train__batch_size": 1, "max_length": 96}],
    ids=["plain", "packed"],
)
def test_cut_anywhere_a_job_that_replays_ends_with_the_same_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    undisturbed, report = one_job(tmp_path / "undisturbed", None, **changes)
    assert report.tokens["rows_replayed"] == 12
    assert sum(report.samples["replayed_from"].values()) == 12
    if not changes.get("train__packing"):
        assert report.job_step == 8  # (18 + 12) / 4 batches in groups of 2, twice
    half = report.job_step // 2
    cuts = [f"step:{half}:term"] if changes.get("train__packing") else [f"step:{half + 1}:raise"]
    for cut in {
        *cuts,
        *(["step:1:term", f"step:{report.job_step}:raise"] if os.environ.get("OVERNIGHT_FULL_GRID") else []),
    }:
        disturbed, _ = one_job(tmp_path / cut.replace(":", "-"), cut, **changes)
        assert [name for name in undisturbed if undisturbed[name] != disturbed.get(name)] == [], cut


def test_a_resume_that_would_replay_other_rows_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, train__replay=0.5, checkpoint__every_steps=2)
    first, second, own = (store(rig, sums(seed, 12)) for seed in (1, 2, 3))
    rig.run(rig.spec(1, rig.layout.rows(own), rehearsal=sources(first)), fault="step:3:raise")
    report = rig.run(rig.spec(1, rig.layout.rows(own), rehearsal=sources(first, second)))
    assert (report.outcome, report.kind) == (Outcome.CRASHED, FailureKind.CHECKPOINT_MISMATCH)
    assert "replay other earlier rows" in report.message


def test_a_replayed_row_that_gives_no_number_is_named_as_one_and_can_be_left_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path, train__replay=0.5, train__nan_rows="skip")
    first, own = store(rig, sums(1, 12)), store(rig, sums(2, 12))
    path = rig.layout.rows(own)
    report = rig.run(rig.spec(1, path, rehearsal=sources(first)), fault="row:14:nan")
    assert (report.kind, report.bad_rows) == (FailureKind.NAN_LOSS, [14])
    assert "2 of those replayed from earlier files" in report.message
    report = rig.run(rig.spec(1, path, rehearsal=sources(first), left_out=[14]), fault="row:14:nan")
    assert report.outcome is Outcome.COMPLETED
    assert report.tokens is not None
    assert (report.tokens["rows_replayed"], report.tokens["rows_left_out"]) == (12, 1)
