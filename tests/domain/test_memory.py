"""A trainer that leaks is told from one that needs much, and a fresh one is only taken where it helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.domain.memory import Footprint, Room, judge

GB = 1_000_000_000
ROOM = Room(total_bytes=16 * GB, available_bytes=1 * GB, where="the machine")
LEAKING = Footprint(settled_bytes=1 * GB, resident_bytes=6 * GB, started_s=10.0, worked_s=3600.0)


def test_a_leak_on_a_machine_that_gets_short_ends_in_a_fresh_process() -> None:
    judged = judge(LEAKING, ROOM, max_bytes=None)
    assert judged.is_ended
    assert "from 1.00 GB after its first steps to 6.00 GB, and the machine has 1.00 GB left" in judged.reason


@pytest.mark.parametrize(
    ("footprint", "room"),
    [
        (LEAKING, replace(ROOM, available_bytes=8 * GB)),
        (replace(LEAKING, settled_bytes=4 * GB), ROOM),
        (replace(LEAKING, settled_bytes=GB // 100, resident_bytes=GB // 2), ROOM),
        (LEAKING, None),
    ],
    ids=["there is room", "it always needed much", "it is others who take the memory", "nothing is known"],
)
def test_what_is_no_leak_or_harms_nobody_goes_on(footprint: Footprint, room: Room | None) -> None:
    judged = judge(footprint, room, max_bytes=None)
    assert not judged.is_ended
    assert not judged.is_told


def test_beyond_the_limit_that_is_set_a_fresh_process_goes_on_whatever_room_there_is() -> None:
    plenty = replace(ROOM, available_bytes=15 * GB)
    assert judge(LEAKING, plenty, max_bytes=5 * GB).is_ended
    assert not judge(LEAKING, plenty, max_bytes=7 * GB).is_told
    assert "watch.max_memory_gb is 5" in judge(LEAKING, None, max_bytes=5 * GB).reason


def test_where_a_fresh_one_would_be_as_big_it_is_told_and_never_ended() -> None:
    judged = judge(replace(LEAKING, settled_bytes=5 * GB), ROOM, max_bytes=4 * GB)
    assert (judged.is_told, judged.is_ended) == (True, False)
    assert "raise the limit" in judged.reason


@pytest.mark.parametrize("max_bytes", [None, 5 * GB])
def test_one_that_leaks_as_fast_as_it_starts_is_never_a_loop_of_restarts(max_bytes: int | None) -> None:
    judged = judge(replace(LEAKING, worked_s=99.0), ROOM, max_bytes=max_bytes)
    assert (judged.is_told, judged.is_ended) == (True, False)
    assert judge(replace(LEAKING, worked_s=100.0), ROOM, max_bytes=max_bytes).is_ended
