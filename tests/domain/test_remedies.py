"""What helps against each kind of failure."""

from __future__ import annotations

import pytest

from overnight.domain.attempt import FailureKind
from overnight.domain.remedies import ENVIRONMENT, REMEDIES, UNKNOWN, WAITING, Action, remedy_of


def test_every_kind_of_failure_has_exactly_one_remedy() -> None:
    assert list(REMEDIES)
    assert set(REMEDIES) == set(FailureKind)


def test_every_action_is_used_by_some_kind() -> None:
    assert {remedy.action for remedy in REMEDIES.values()} == set(Action)


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_remedy_is_a_sentence_for_the_user(kind: FailureKind) -> None:
    words = remedy_of(kind).words
    assert words[0].isupper()
    assert words.endswith(".")
    assert "  " not in words
    assert len(words) < 300


def test_what_is_the_machine_s_fault_is_waited_out() -> None:
    assert {kind for kind in FailureKind if remedy_of(kind).action in WAITING} == ENVIRONMENT
    blameless = {"host_oom", "disk_full", "dependency", "permission", "network_hub", "driver_mismatch", "gpu_hardware"}
    assert blameless | {"too_many_files", "config_error"} <= {kind.value for kind in ENVIRONMENT}
    assert not {"data_format", "nan_loss", "cuda_oom", "code_error"} & {kind.value for kind in ENVIRONMENT}


def test_an_end_without_a_kind_has_a_remedy_too() -> None:
    assert remedy_of(None) is UNKNOWN
