"""Two looks at folders, compared: what somebody did is told apart from what was only moved."""

from __future__ import annotations

from overnight.domain.sightings import Change, Deed, changes_inside, changes_of_files, in_words

FILE, OTHER = (1, 10, 5, 100), (1, 11, 5, 100)
EDITED = (1, 10, 6, 200)


def test_a_file_that_was_moved_from_folder_to_folder_is_no_change() -> None:
    assert changes_of_files({"queue": {"a": FILE}, "done": {}}, {"queue": {}, "done": {"a.2": FILE}}) == []


def test_removed_edited_and_replaced_are_told_apart() -> None:
    def deeds(after: dict[str, tuple[int, int, int, int]]) -> list[Deed]:
        return [change.deed for change in changes_of_files({"queue": {"a": FILE}}, {"queue": after})]

    assert deeds({}) == [Deed.REMOVED]
    assert deeds({"a": EDITED}) == [Deed.EDITED]
    assert deeds({"a": OTHER}) == [Deed.REPLACED]
    assert deeds({"a": FILE, "b": OTHER}) == []


def test_a_file_that_was_edited_and_then_moved_was_edited() -> None:
    changes = changes_of_files({"queue": {"a": FILE}, "done": {}}, {"queue": {}, "done": {"a": EDITED}})
    assert changes == [Change(folder="queue", deed=Deed.EDITED, name="a")]


def test_a_new_file_that_was_given_the_inode_of_a_removed_one_is_another_file() -> None:
    changes = changes_of_files({"queue": {}, "done": {"a": FILE}}, {"queue": {"b": EDITED}, "done": {}})
    assert changes == [Change(folder="done", deed=Deed.REMOVED, name="a")]


def test_of_a_folder_that_was_not_watched_nothing_is_said() -> None:
    assert changes_of_files({"queue": {"a": FILE}}, {}) == []


def test_inside_a_folder_that_never_changes_only_new_files_that_matter_count() -> None:
    before = {"w.bin": FILE, "note.txt": OTHER}
    assert changes_inside("c", before, {**before, "read.me": FILE, "x.json": FILE}, matters=[".json"]) == [
        Change(folder="c", deed=Deed.ADDED, name="x.json")
    ]
    assert [change.deed for change in changes_inside("c", before, {"w.bin": EDITED})] == [Deed.EDITED, Deed.REMOVED]


def test_many_files_are_one_sentence_that_names_the_first() -> None:
    changes = [Change(folder="done", deed=Deed.REMOVED, name=f"{number}.jsonl") for number in range(9)]
    assert list(in_words(changes).values()) == [
        "done/0.jsonl, done/1.jsonl, done/2.jsonl and 6 more were removed by somebody"
    ]


def test_a_file_that_was_moved_to_another_disk_is_no_change() -> None:
    there = (2, 77, 5, 900)
    assert changes_of_files({"queue": {"a.jsonl": FILE}, "done": {}}, {"queue": {}, "done": {"a.3.jsonl": there}}) == []
    other = (2, 77, 6, 900)
    changes = changes_of_files({"queue": {"a.jsonl": FILE}, "done": {}}, {"queue": {}, "done": {"a.jsonl": other}})
    assert [change.deed for change in changes] == [Deed.REMOVED]
