"""What a training run died of: every kind in many forms, the root and not its echoes, and healthy runs left alone."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from crash_examples import EXAMPLES as COMMON
from crash_examples import HOST_OOM, STEPS, Example, chained, labelled, torchrun, traceback
from crash_examples_rare import RARE
from overnight.domain.attempt import FailureKind
from overnight.domain.crash_verdict import EVIDENCE_LIMIT, EVIDENCE_WIDTH, classify_log

K = FailureKind
EXAMPLES = [*COMMON, *RARE]
NONE = [example for example in EXAMPLES if example.kind == "none"]
LABELLED = Path(__file__).parents[3] / "shared" / "crashlogs"

OOM = traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "model.py:forward")
FAULT = traceback("TypeError: 'NoneType' object is not callable", "/home/me/run/train.py:hook")
CUT_LINK = traceback(
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [::1]:1",
    "SITE/torch/distributed/distributed_c10d.py:all_reduce",
)


def kind(log: str, exit_code: int | None = None, signal: int | None = None) -> FailureKind:
    return classify_log(log.split("\n"), exit_code, signal).kind


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_each_way_to_fail_is_named(example: Example) -> None:
    assert kind(example.log, example.exit_code) == example.kind


def test_there_are_examples_of_every_kind() -> None:
    counted = Counter(example.kind for example in EXAMPLES)
    assert set(counted) == {one.value for one in FailureKind}
    assert min(counted.values()) >= 6


LABELS = ["[rank3]: ", "(Worker pid=77, ip=10.0.0.7) ", "2: ", "\x1b[36m[default1]:\x1b[0m"]
NEVER_LABELLED = re.compile(r"^(?:\S*: |\[|Usage|usage|\S+\.py|kernel|python|INFO|E)|\r")
LABELLABLE = [
    (example, LABELS[number % len(LABELS)])
    for number, example in enumerate(EXAMPLES)
    if not NEVER_LABELLED.search(example.log)
]


@pytest.mark.parametrize(("example", "label"), LABELLABLE, ids=[example.name for example, _ in LABELLABLE])
def test_a_launchers_label_before_each_line_changes_nothing(example: Example, label: str) -> None:
    assert kind(labelled(label, example.log), example.exit_code) == example.kind


@pytest.mark.parametrize("example", NONE, ids=[example.name for example in NONE])
@pytest.mark.parametrize("exit_code", [None, 0])
def test_a_healthy_run_raises_no_alarm(example: Example, exit_code: int | None) -> None:
    assert kind(example.log, exit_code) is K.NONE


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.kind not in ("none", "nan_loss")], ids=lambda e: e.name)
def test_what_was_overcome_is_no_failure(example: Example) -> None:
    """The same words, after which training went on to its end."""
    log = f"{example.log}\nrestarted from step 8\n{STEPS}\n{{'train_runtime': 3.1, 'train_loss': 2.2}}"
    assert kind(log, 0) is K.NONE


def test_the_first_rank_to_fail_is_the_cause_and_not_those_that_lost_it() -> None:
    log = "\n".join([labelled("[rank1]: ", OOM), labelled("[rank0]: ", CUT_LINK), torchrun(1, 1)])
    assert kind(log, 1) is K.CUDA_OOM
    log = "\n".join([labelled("[rank0]: ", CUT_LINK), labelled("[rank1]: ", FAULT), torchrun(1, 1)])
    assert kind(log, 1) is K.CODE_ERROR


def test_ranks_that_speak_at_the_same_time_are_kept_apart() -> None:
    one, other = labelled("[rank0]: ", CUT_LINK).splitlines(), labelled("[rank1]: ", OOM).splitlines()
    mixed = [line for pair in zip(one, other, strict=False) for line in pair] + one[len(other) :] + other[len(one) :]
    assert kind("\n".join(mixed), 1) is K.CUDA_OOM


def test_the_cause_of_an_exception_outranks_the_exception() -> None:
    missing = traceback("ModuleNotFoundError: No module named 'rich'", "lib.py:<module>")
    wrapper = traceback("RuntimeError: could not load the trainer", "/home/me/run/train.py:load")
    assert kind(chained(missing, wrapper), 1) is K.DEPENDENCY


def test_what_happened_while_an_exception_was_handled_counts_where_it_says_more() -> None:
    first = traceback("KeyError: 'cached'", "/home/me/run/train.py:load")
    second = traceback("OSError: [Errno 28] No space left on device", "/home/me/run/train.py:save")
    assert kind(chained(first, second, by="during"), 1) is K.DISK_FULL


def test_a_log_that_begins_in_the_middle_of_a_traceback_is_understood() -> None:
    assert kind("\n".join(OOM.splitlines()[4:]), 1) is K.CUDA_OOM
    assert kind("[rank1]: KeyError: 'text'\n" + torchrun(1, 1), 1) is K.DATA_FORMAT


@pytest.mark.parametrize(
    ("log", "exit_code", "expected"),
    [
        (f"{STEPS}\n{OOM}", 137, K.CUDA_OOM),
        (f"{STEPS}\n{FAULT}", 1, K.CODE_ERROR),
        (f"{STEPS}\n{OOM}\ndone", 0, K.CUDA_OOM),
        (STEPS, 0, K.NONE),
        (STEPS, None, K.NONE),
        (STEPS, 1, K.CODE_ERROR),
        (STEPS, 139, K.SEGFAULT),
        (STEPS, 135, K.SEGFAULT),
        (STEPS, 130, K.USER_INTERRUPT),
        (STEPS, 143, K.KILLED_BY_SIGNAL),
        (STEPS, 124, K.HANG),
        ("", None, K.NONE),
        ("", 137, K.KILLED_BY_SIGNAL),
        ("Loading the dataset into memory\nMap:  40%|####      | 4000/10000", 137, K.HOST_OOM),
        ("step 1 loss 2.5 rss 21.2 GB\nstep 2 loss 2.4 rss 38.0 GB", 137, K.HOST_OOM),
    ],
)
def test_exit_status_and_log_are_read_together(log: str, exit_code: int | None, expected: FailureKind) -> None:
    assert kind(log, exit_code) is expected


def test_a_signal_is_known_by_number_too() -> None:
    assert kind(STEPS, signal=11) is K.SEGFAULT
    assert kind(STEPS, exit_code=-11) is K.SEGFAULT


def test_a_sure_verdict_is_told_apart_from_a_guess() -> None:
    sure = classify_log(HOST_OOM[0].log.split("\n"))
    guess = classify_log(STEPS.split("\n"), 1)
    assert sure.confidence > 0.9 > 0.5 > guess.confidence
    assert (sure.is_guess, guess.is_guess) == (False, True)


def test_evidence_names_lines_and_is_bounded() -> None:
    log = "\n".join([STEPS, *(OOM.replace("2.00", "9" * 5000) for _ in range(50))])
    verdict = classify_log(log.split("\n"), 1)
    assert 0 < len(verdict.evidence) <= EVIDENCE_LIMIT
    first = verdict.evidence[0]
    assert first.text.startswith("torch.OutOfMemoryError")
    assert log.split("\n")[first.line - 1].startswith("torch.OutOfMemoryError")
    assert all(len(clue.text) <= EVIDENCE_WIDTH for clue in verdict.evidence)


@pytest.mark.skipif(not LABELLED.is_dir(), reason="the labelled logs do not lie beside the checkout")
def test_labelled_logs_of_real_runs_are_named_right() -> None:
    with open(LABELLED / "labels.tsv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    wrong, false_alarms = [], []
    for row in rows:
        lines = (LABELLED / row["file"]).read_text(encoding="utf-8").split("\n")
        found = classify_log(lines, int(row["exit_status"]) if row["exit_status"] else None).kind
        if found != row["category"]:
            wrong.append((row["file"], row["category"], found.value))
            if row["category"] == "none":
                false_alarms.append(row["file"])
    assert len(rows) > 50
    assert false_alarms == []
    assert len(wrong) <= 0.05 * len(rows), wrong
