"""Resume is bit for bit, continue keeps what it should: weights, optimizer, schedule, random numbers, cursor."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from rig import Rig, digests, sums  # noqa: E402

from overnight.disk import attempts  # noqa: E402
from overnight.domain.attempt import FailureKind, Outcome  # noqa: E402
from overnight.domain.replay import by_step, first_difference  # noqa: E402
from overnight.trainer import callbacks, environment, fit  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

ROWS = 22  # with batch 4: 6 batches, the last one short; in groups of 3 and 4 a last group that is partial
FULL_GRID = list(itertools.product([1, 4], [False, True], [1, 2], [0.0, 0.1], ["lora", "full"]))
PAIRWISE = [  # each pair of values of each two columns occurs
    (1, False, 1, 0.0, "lora"),
    (1, True, 2, 0.1, "lora"),
    (1, False, 2, 0.1, "full"),
    (4, False, 2, 0.1, "lora"),
    (4, True, 1, 0.0, "full"),
    (4, False, 1, 0.1, "lora"),
    (1, True, 1, 0.0, "lora"),
    (4, True, 2, 0.0, "lora"),
]
GRID = FULL_GRID if os.environ.get("OVERNIGHT_FULL_GRID") else PAIRWISE


def name_of(case: tuple[int, bool, int, float, str]) -> str:
    accumulation, packing, epochs, dropout, method = case
    return f"{method}-acc{accumulation}-{'packed' if packing else 'plain'}-{epochs}ep-drop{dropout:g}"


def settings_of(case: tuple[int, bool, int, float, str]) -> dict[str, Any]:
    accumulation, packing, epochs, dropout, method = case
    return {
        "train__gradient_accumulation_steps": accumulation,
        "train__packing": packing,
        "train__batch_size": 1 if packing else 4,
        "max_length": 96 if packing else 64,
        "train__epochs": epochs,
        "lora__dropout": dropout,
        "method": method,
        "checkpoint__every_steps": 2,
        "evaluation__holdout": 0.0,
    }


def two_jobs(root: Path, case: Any, fault: str | None = None) -> tuple[dict[str, str], int]:
    rig = Rig(root, **settings_of(case))
    for job in (1, 2):
        report = rig.train(job, rig.rows(sums(job, ROWS), str(job)), fault=fault)
    return rig.state(), report.job_step


@pytest.mark.parametrize("case", GRID, ids=name_of)
def test_cut_anywhere_and_resumed_both_jobs_end_with_the_same_state(tmp_path: Path, case: Any) -> None:
    undisturbed, steps = two_jobs(tmp_path / "undisturbed", case)
    cuts = {"step:1:term", f"step:{(steps + 1) // 2}:term", f"step:{(steps + 1) // 2}:raise", f"step:{steps}:raise"}

    for cut in sorted(cuts):
        disturbed, _ = two_jobs(tmp_path / cut.replace(":", "-"), case, cut)
        different = [name for name in undisturbed if undisturbed[name] != disturbed.get(name)]
        assert different == [], cut
        assert disturbed.keys() == undisturbed.keys()


CASE = (1, False, 2, 0.1, "lora")


def test_without_the_random_number_state_the_comparison_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, _ = two_jobs(tmp_path / "a", CASE)
    monkeypatch.setattr(transformers.Trainer, "_load_rng_state", lambda self, checkpoint: None)
    disturbed, _ = two_jobs(tmp_path / "b", CASE, "step:6:raise")
    assert any(undisturbed[name] != disturbed[name] for name in undisturbed if ".safetensors" in name)


def test_without_the_data_cursor_the_comparison_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, _ = two_jobs(tmp_path / "a", CASE)
    really = fit.arguments

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        made = really(*args, **kwargs)
        made.ignore_data_skip = True
        return made

    monkeypatch.setattr(fit, "arguments", forgetful)
    disturbed, _ = two_jobs(tmp_path / "b", CASE, "step:6:raise")
    assert any(undisturbed[name] != disturbed[name] for name in undisturbed if ".safetensors" in name)


def test_a_job_that_passes_step_two_to_the_thirty_one_ends_with_the_weights_of_one_that_begins_at_nought(
    tmp_path: Path,
) -> None:
    states = []
    for start in (0, 2**31 - 4):
        rig = Rig(tmp_path / str(start), checkpoint__every_steps=3)
        report = rig.train(1, rig.rows(sums(1, 32), "a"), fault="step:6:raise", start_step=start, seed=1000)
        assert report.step == start + 8
        states.append({name: value for name, value in rig.state().items() if name != "cursor"})
    assert states[0] == states[1]


def test_a_weight_that_changes_by_itself_is_seen_in_the_numbers_of_the_next_step(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=100)
    rows = rig.rows(sums(1, 32), "a")
    told: list[dict[int, Any]] = []
    for fault in ("step:8:raise", "step:8:raise", "step:5:perturb"):
        spec = rig.spec(1, rows)
        rig.run(spec, fault=fault)
        told.append(by_step(attempts.read_metrics(rig.layout.attempt(spec.attempt), limit=100), after=0))
    assert sorted(told[0]) == list(range(1, 8))
    assert first_difference(told[0], told[1]) is None
    found = first_difference(told[1], told[2])
    assert found is not None
    assert (found.step, found.equal) == (5, 4)


def test_two_threads_are_as_exact_as_one(tmp_path: Path) -> None:
    states = []
    try:
        for name, fault in (("a", None), ("b", "step:4:raise")):
            rig = Rig(tmp_path / name, train__epochs=2, lora__dropout=0.1)
            rig.train(1, rig.rows(sums(1, 22), "a"), fault=fault, threads=2)
            states.append(rig.state())
    finally:
        torch.set_num_threads(1)
    assert states[0] == states[1]


def chain(root: Path, **changes: Any) -> Rig:
    rig = Rig(root, max_length=64, checkpoint__every_steps=5, **changes)
    for job in (1, 2, 3):
        rig.train(job, rig.rows(sums(job, 64), str(job)))
    return rig


def test_three_files_of_64_rows_are_48_steps_on_one_model_that_learns(tmp_path: Path) -> None:
    rig = chain(tmp_path)
    newest = rig.newest()
    assert newest is not None
    assert newest.manifest is not None
    assert (newest.step, newest.manifest.start_step, newest.manifest.job_step) == (48, 32, 16)
    state = json.loads((Path(newest.path) / "trainer_state.json").read_text())
    assert state["global_step"] == 16, "Hugging Face counts the steps of the job"
    lines = [
        json.loads(line)
        for job in (1, 2, 3)
        for line in (rig.layout.attempt(f"{job:06d}-01") / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == list(range(1, 49))
    losses = [line["loss"] for line in lines]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_the_next_job_keeps_the_optimizers_memory_and_starts_its_own_schedule(tmp_path: Path) -> None:
    rig = chain(tmp_path, train__warmup_steps=2)
    newest = rig.newest()
    assert newest is not None
    optimizer = torch.load(Path(newest.path) / "optimizer.pt", weights_only=True)
    assert {float(item["step"]) for item in optimizer["state"].values()} == {48.0}
    rates = [
        json.loads(line)["learning_rate"]
        for line in (rig.layout.attempt("000003-01") / "metrics.jsonl").read_text().splitlines()
    ]
    assert rates[0] == 0.0
    assert rates[2] == pytest.approx(0.002)
    assert rates[-1] < 0.0002


def test_a_job_continued_without_the_optimizers_memory_would_end_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = chain(tmp_path / "kept").state()
    monkeypatch.setattr(callbacks, "adopt_optimizer", lambda optimizer, checkpoint: None)
    assert chain(tmp_path / "lost").state() != kept


def test_another_seed_gives_another_order_and_other_bytes(tmp_path: Path) -> None:
    states = []
    for seed in (1, 2):
        rig = Rig(tmp_path / str(seed))
        rig.train(1, rig.rows(sums(1, 16), "a"), seed=seed)
        states.append(rig.state())
    assert states[0] != states[1]


def test_a_job_killed_before_its_first_checkpoint_starts_again_with_the_same_end(tmp_path: Path) -> None:
    case = (1, False, 1, 0.1, "lora")
    assert two_jobs(tmp_path / "a", case)[0] == two_jobs(tmp_path / "b", case, "step:2:raise")[0]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_evaluation_leaves_no_trace_in_the_weights(tmp_path: Path, method: str) -> None:
    from overnight.trainer.data import is_held_out

    rows = sums(7, 40)
    kept = [row for row in rows if not is_held_out(json.dumps(row).encode(), 0.3)]
    assert 20 < len(kept) < 36
    common: dict[str, Any] = {"method": method, "lora__dropout": 0.1, "train__epochs": 2}

    evaluated = Rig(tmp_path / "a", **common, evaluation__holdout=0.3, evaluation__every_steps=2)
    report = evaluated.train(1, evaluated.rows(rows, "a"))
    plain = Rig(tmp_path / "b", **common)
    plain.train(1, plain.rows(kept, "a"))

    assert report.eval_loss is not None
    assert report.tokens is not None
    assert (report.tokens["rows_trained"], report.tokens["rows_held_out"]) == (len(kept), 40 - len(kept))
    assert evaluated.state() == plain.state()
    lines = [
        json.loads(line) for line in (evaluated.layout.attempt("000001-01") / "metrics.jsonl").read_text().splitlines()
    ]
    measured = [line for line in lines if "eval_loss" in line]
    assert [line["step"] for line in measured[:2]] == [2, 4]
    assert measured[-1]["step"] == report.step
    assert measured[-1]["eval_loss"] < measured[0]["eval_loss"]


def test_a_job_of_one_short_batch_is_trained(tmp_path: Path) -> None:
    rig = Rig(tmp_path, train__gradient_accumulation_steps=3)
    report = rig.train(1, rig.rows(sums(1, 3), "a"))
    assert (report.outcome, report.job_step) == (Outcome.COMPLETED, 1)


def test_a_complete_job_launched_again_is_complete_and_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rows = rig.rows(sums(1, 16), "a")
    rig.train(1, rows)
    before = rig.state()
    report = rig.run(rig.spec(1, rows))
    assert (report.outcome, report.step, report.checkpoint) == (Outcome.COMPLETED, 4, 4)
    assert rig.state() == before


def test_a_resume_under_other_settings_is_refused_not_guessed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 32), "a")
    assert rig.run(rig.spec(1, rows), fault="step:4:raise").outcome is Outcome.CRASHED

    rig.settings["train"]["batch_size"] = 2
    report = rig.run(rig.spec(1, rows))
    assert (report.kind, report.charged) == (FailureKind.CHECKPOINT_MISMATCH, False)
    assert "16 steps" in report.message

    rig.settings["train"]["batch_size"] = 4
    rig.settings["lora"]["r"] = 8
    assert "lora.r" in rig.run(rig.spec(1, rows)).message

    rig.settings["lora"]["r"] = 4
    config = rig.layout.base / "tiny" / "config.json"
    whole = config.read_text()
    config.write_text(whole + "\n")
    assert "base model" in rig.run(rig.spec(1, rows)).message
    config.write_text(whole)

    other = rig.rows(sums(2, 32), "b")
    assert "another job" in rig.run(rig.spec(1, other)).message
    assert rig.run(rig.spec(1, rows)).outcome is Outcome.COMPLETED


def test_a_resume_on_other_ground_works_and_says_what_is_not_promised(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 32), "a")
    rig.run(rig.spec(1, rows), fault="step:4:raise")
    try:
        report = rig.run(rig.spec(1, rows, threads=2))
    finally:
        torch.set_num_threads(1)
    assert report.outcome is Outcome.COMPLETED
    assert any("threads 1 -> 2" in note for note in report.notes)


@pytest.mark.parametrize("mode", ["resume", "continue"])
def test_what_was_trained_on_a_gpu_does_not_slip_down_to_the_cpu(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    rows = rig.rows(sums(1, 32), "a")
    with monkeypatch.context() as patch:
        really = environment.facts
        patch.setattr(environment, "facts", lambda **facts: really(**{**facts, "device": "cuda"}))
        rig.run(rig.spec(1, rows), fault="step:4:raise" if mode == "resume" else None)
    rig.settings["train"]["device"] = "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = 1 if mode == "resume" else 2
    report = rig.run(rig.spec(job, rows))
    assert (report.kind, report.charged) == (FailureKind.GPU_HARDWARE, False)
    assert "train.device" in report.message
    rig.settings["train"]["device"] = "cpu"
    assert rig.run(rig.spec(job, rows)).outcome is Outcome.COMPLETED


def test_what_stands_under_the_name_of_a_new_checkpoint_is_set_aside(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checkpoint__every_steps=2)
    junk = rig.layout.checkpoint(2)
    junk.mkdir()
    (junk / "mine.txt").write_text("keep me")
    rig.train(1, rig.rows(sums(1, 16), "a"))
    assert not (rig.layout.checkpoint(2) / "mine.txt").exists()
    assert [path.read_text() for path in rig.layout.trash.glob("checkpoint-2.*/mine.txt")] == ["keep me"]


def test_a_checkpoint_holds_no_pickle_but_what_weights_only_reads(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.train(1, rig.rows(sums(1, 16), "a"))
    newest = rig.newest()
    assert newest is not None
    folder = Path(newest.path)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
            "trainer_state.json", "tokenizer.json", "manifest.json", "training_args.json"} <= names  # fmt: skip
    assert "training_args.bin" not in names
    with (
        transformers.trainer_utils.safe_globals()
        if hasattr(transformers.trainer_utils, "safe_globals")
        else (transformers.trainer_pt_utils.safe_globals())
    ):
        for name in names:
            if name.endswith((".pt", ".pth", ".bin")):
                torch.load(folder / name, weights_only=True)
    assert digests(folder) == rig.state()
