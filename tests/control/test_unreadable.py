"""A file that cannot be read is told in the same words by every verb that takes one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overnight.control import adding, classifying
from overnight.domain.errors import UsageError


@pytest.mark.parametrize("kind", ["missing", "folder", "loop", "below a file"])
def test_validate_and_classify_tell_alike_what_is_wrong_with_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        path.touch()
        path = path / "inside"
    with pytest.raises(UsageError) as judged:
        adding.validate(path, layout=None, settings=None, trained=[], progress=None)
    with pytest.raises(UsageError) as named:
        classifying.classify(os.fspath(path), exit_code=None, signal=None)
    assert (judged.value.what, judged.value.found, judged.value.code) == (
        named.value.what, named.value.found, named.value.code
    )  # fmt: skip
