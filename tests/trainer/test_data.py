"""Every row and token is accounted for, packed rows do not see each other, and nothing needs memory or HOME."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from rig import Rig, merged, sums  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from overnight.disk import builtin  # noqa: E402
from overnight.disk.tokenizer import load_encoder  # noqa: E402
from overnight.domain import config, held_out  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.domain.errors import DataError  # noqa: E402
from overnight.trainer import data, fit  # noqa: E402
from overnight.trainer.faults import Faults  # noqa: E402
from overnight.trainer.pulse import Pulse  # noqa: E402
from overnight.trainer.run import Run  # noqa: E402
from overnight.trainer.wishes import AskedToLeave, Wishes  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


class Given:
    """A data set and what is needed to prepare it."""

    def __init__(self, root: Path, rows: list[Any], **changes: Any) -> None:
        self.rig = Rig(root, **changes)
        self.path = self.rig.rows(rows, "a")
        self.spec = self.rig.spec(1, self.path)
        self.folder = self.rig.place(self.spec)
        self.pulse = Pulse(self.folder, self.spec)
        self.wishes = Wishes(self.folder, unwatched_limit_s=1e9)

    def prepare(self) -> data.Prepared:
        scratch = self.folder / "output"
        scratch.mkdir()
        return data.prepare(
            self.path, load_encoder(Path(self.spec.base_model)), config.parse(self.spec.settings),
            dataset_id=self.spec.dataset_id, scratch=scratch, pulse=self.pulse, wishes=self.wishes,
        )  # fmt: skip


def long_row(length: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x" * length}, {"role": "assistant", "content": "yes"}]}


def test_rows_and_tokens_add_up_and_dropped_rows_are_named(tmp_path: Path) -> None:
    rows = [*sums(1, 30), long_row(200), *sums(2, 5), long_row(300), {"text": "z" * 90}]
    prepared = Given(tmp_path, rows, max_length=64, evaluation__holdout=0.2).prepare()

    account = prepared.account
    numbers = account.numbers()
    assert numbers["total"] == sum(numbers[name] for name in ("supervised", "masked", "truncated", "dropped"))
    assert numbers["rows_total"] == 38
    assert numbers["rows_total"] == sum(numbers[f"rows_{name}"] for name in ("trained", "dropped", "held_out"))
    assert set(account.dropped_rows) <= {31, 37}
    assert account.dropped == len(account.dropped_rows) > 0
    assert len(prepared.train) == account.trained
    labels = [label for row in prepared.train for label in row["labels"]]
    assert numbers["supervised"] == sum(label != -100 for label in labels)
    assert numbers["supervised"] + numbers["masked"] == len(labels)


def test_what_is_held_out_hangs_on_the_row_alone(tmp_path: Path) -> None:
    rows = sums(1, 60)
    lines = [json.dumps(row).encode() for row in rows]
    held = {line for line in lines if data.is_held_out(line, 0.25)}
    assert 5 <= len(held) <= 25
    assert {line for line in reversed(lines) if data.is_held_out(line, 0.25)} == held
    assert held <= {line for line in lines if data.is_held_out(line, 0.5)}
    assert not any(data.is_held_out(line, 0.0) for line in lines)
    prepared = Given(tmp_path, rows, evaluation__holdout=0.25, evaluation__max_examples=3).prepare()
    assert prepared.account.held_out == len(held)
    assert len(prepared.held_out) == min(3, len(held))


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ([long_row(200), long_row(100)], {"max_length": 64}, "2 rows dropped (1, 2)"),
        ([], {}, "no rows"),
        (sums(1, 1), {"evaluation__holdout": 0.5}, "held out"),
    ],
    ids=["all cut", "empty", "all held out"],
)
def test_a_job_with_nothing_to_learn_never_starts(
    tmp_path: Path, rows: list[Any], changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out.xxhash, "xxh3_64_intdigest", lambda line: 0)
    with pytest.raises(DataError) as caught:
        Given(tmp_path, rows, **changes).prepare()
    assert said in str(caught.value)


def test_the_report_of_such_a_job_blames_the_data_and_names_the_rows(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    report = rig.run(rig.spec(1, rig.rows([long_row(200)], "a")))
    assert (report.outcome, report.kind, report.charged) == (Outcome.CRASHED, FailureKind.DATA_FORMAT, True)
    assert "rows dropped (1)" in report.message
    assert report.step == 0
    assert rig.newest() is None


def test_a_base_without_chat_template_is_refused_before_the_first_step(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (rig.layout.base / "tiny" / "chat_template.jinja").unlink()
    report = rig.run(rig.spec(1, rig.rows(sums(1, 4), "a")))
    assert (report.kind, report.charged) == (FailureKind.DATA_FORMAT, True)
    assert "chat template" in report.message
    plain = rig.run(rig.spec(2, rig.rows([{"text": "all is well"}] * 4, "b")))
    assert plain.outcome is Outcome.COMPLETED


def test_a_base_without_end_token_is_refused_before_the_first_step(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = rig.layout.base / "tiny" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    report = rig.run(rig.spec(1, rig.rows(sums(1, 4), "a")))
    assert report.kind is FailureKind.DATA_FORMAT
    assert "end token" in report.message


def test_rows_longer_than_the_model_can_read_are_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_length=256)
    path = rig.layout.base / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 100}))
    report = rig.run(rig.spec(1, rig.rows([{"text": "long " * 30}], "a")))
    assert (report.kind, report.charged) == (FailureKind.CONFIG_ERROR, False)
    assert "150" in report.message or "151" in report.message


def test_the_wish_to_leave_ends_the_preparation_at_once(tmp_path: Path) -> None:
    given = Given(tmp_path, sums(1, 2000))
    (given.folder / "notice.json").write_text('{"schema": 1, "wish": "save_and_leave", "reason": "pause"}')
    with pytest.raises(AskedToLeave, match="pause"):
        given.prepare()


def test_the_end_token_of_each_answer_is_learnt(tmp_path: Path) -> None:
    prepared = Given(tmp_path, sums(1, 8)).prepare()
    end = load_encoder(Path(builtin.resolve(Rig(tmp_path / "x").layout, "builtin:tiny"))).eos_id
    assert all(end in [label for label in row["labels"] if label != -100] for row in prepared.train)


def test_a_packed_row_gets_the_logits_that_it_gets_alone(tmp_path: Path) -> None:
    given = Given(tmp_path, sums(1, 24), max_length=128, train__packing=True, train__batch_size=1)
    prepared = given.prepare()
    assert len(prepared.train) < 24
    packed = max(prepared.train, key=lambda row: len(row["seq_lengths"]))
    assert len(packed["seq_lengths"]) > 1
    run = Run(
        spec=given.spec, settings=config.parse(merged({"train__packing": True, "max_length": 128})),
        folder=given.folder, scratch=given.folder / "output", pulse=given.pulse, wishes=given.wishes,
        faults=Faults(None), owns_model=lambda: True,
    )  # fmt: skip
    device = fit.models.choose_device(run.settings)
    loaded = fit.models.load(Path(given.spec.base_model), None, run.settings, device, seed=1)
    trainer = fit.build(run, prepared, loaded, device)
    model = trainer.model.eval()
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        inputs = trainer.data_collator([packed])
        assert "attention_mask" not in inputs
        labels = inputs.pop("labels")
        together = model(**inputs).logits[0]
        start = 0
        for length in packed["seq_lengths"]:
            ids = torch.tensor([packed["input_ids"][start : start + length]])
            alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            assert torch.allclose(together[start : start + length], alone, atol=1e-5)
            assert labels[0, start] == -100, "no row learns to predict the first token of the next"
            start += length
        shifted = model(input_ids=inputs["input_ids"]).logits[0]
        assert not torch.allclose(together[length:], shifted[length:], atol=1e-5), "the check can fail"


def test_tokenising_streams(tmp_path: Path) -> None:
    """40 MB of rows must not take 40 MB of memory more than a small file does."""
    import resource

    given = Given(tmp_path, [{"text": "word " * 40}] * 42000, max_length=1024)
    given.spec = given.rig.spec(1, given.path, attempt=given.spec.attempt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared = given.prepare()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert prepared.account.rows == 42000
    assert (given.folder / "output" / "train.arrow").stat().st_size > 60e6
    assert grown < 60


def test_a_tokenizer_without_padding_token_trains(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    path = rig.layout.base / "tiny" / "tokenizer_config.json"
    value = json.loads(path.read_text())
    del value["pad_token"]
    path.write_text(json.dumps(value))
    assert rig.train(1, rig.rows(sums(1, 8), "a")).outcome is Outcome.COMPLETED


def test_code_in_a_models_folder_is_never_run(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    base = rig.layout.base / "tiny"
    value = json.loads((base / "config.json").read_text())
    value["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"}
    (base / "config.json").write_text(json.dumps(value))
    (base / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    rig.run(rig.spec(1, rig.rows(sums(1, 8), "a")))
    assert not (tmp_path / "owned").exists()


def test_transformers_own_tokenizer_reads_a_conversation_as_ours_does(tmp_path: Path) -> None:
    given = Given(tmp_path, sums(1, 5))
    prepared = given.prepare()
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.spec.base_model)
    for row, source in zip(prepared.train, sums(1, 5), strict=True):
        theirs = tokenizer.apply_chat_template(source["messages"], tokenize=True)["input_ids"]
        assert row["input_ids"] == theirs[: len(row["input_ids"])]
        assert len(theirs) - len(row["input_ids"]) <= 1


def test_rows_that_are_not_the_ones_admitted_are_not_trained(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rows = rig.rows(sums(1, 8), "a")
    spec = rig.spec(1, rows)
    rows.write_text(rows.read_text().replace("+", "-"))
    report = rig.run(spec)
    assert (report.kind, report.charged) == (FailureKind.DATA_FORMAT, True)
    assert "admitted" in report.message


def test_rows_that_are_gone_are_named_and_not_charged(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rows = rig.rows(sums(1, 8), "a")
    spec = rig.spec(1, rows)
    rows.unlink()
    report = rig.run(spec)
    assert (report.kind, report.charged) == (FailureKind.FILE_NOT_FOUND, False)
    assert "rows.jsonl" in report.message


def test_a_base_with_tied_weights_and_odd_generation_settings_is_trained_in_full_and_resumed(tmp_path: Path) -> None:
    states = []
    for name, fault in (("a", None), ("b", "step:5:raise")):
        rig = Rig(tmp_path / name, method="full", train__epochs=2)
        base = rig.layout.base / "tiny"
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
        weights = load_file(base / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
        generation = json.loads((base / "generation_config.json").read_text())
        (base / "generation_config.json").write_text(json.dumps({**generation, "temperature": 0.6, "top_p": 0.9}))
        for job in (1, 2):
            rig.train(job, rig.rows(sums(job, 22), str(job)), fault=fault)
        states.append(rig.state())
    assert states[0] == states[1]
    assert not any("lm_head" in key for key in states[0])
