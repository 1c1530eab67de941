"""An export is the version, verified, in a new folder that is there whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.control import exporting
from overnight.disk import builtin, files, sealed, versions, workspace
from overnight.disk.layout import Layout
from overnight.domain.errors import DiskError, FailedError, OvernightError, UsageError
from overnight.domain.export import Format, how_to_use
from overnight.domain.version import Version

ADAPTER = {"adapter_config.json": b'{"r": 4}', "adapter_model.safetensors": bytes(range(64))}
VERSION = Version(
    id="v001", parent=None, kind="merge", description="", created_at=1.0, step=3, model_name="my model", method="lora",
    base_model=builtin.TINY, base_path="/base", base_fingerprint="blake3:0", checkpoint="checkpoint-3",
    checkpoint_digest="0", datasets=[], config={}, locked={}, metrics={}, libraries={}, merge={}, fingerprints={},
)  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """Give a workspace with one version."""
    made = Layout(tmp_path.resolve() / "w")
    workspace.create(made)
    staging = versions.make_staging(made, "v001")
    tiny = made.base / "tiny"
    builtin.make_tiny(tiny)
    for path in tiny.iterdir():
        files.copy_durably(path, staging / path.name)
    (staging / "adapter").mkdir()
    for name, content in ADAPTER.items():
        files.write_durably(staging / "adapter" / name, content)
    versions.seal(staging, VERSION)
    sealed.unseal_folders(staging)
    files.rename_durably(staging, made.versions / "v001")
    yield made
    sealed.unseal_folders(made.versions / "v001")


def folder_of(layout: Layout) -> Path:
    return layout.versions / "v001"


def require_nothing_left(place: Path, *, but: set[str] = frozenset({"w"})) -> None:  # type: ignore[assignment]
    assert set(os.listdir(place)) == but


def test_hf_is_the_model_byte_for_byte_without_what_is_ours(layout: Layout, tmp_path: Path) -> None:
    done = exporting.export_version(layout, "v001", to=tmp_path / "out", format=Format.HF)
    version = versions.read(folder_of(layout))
    assert set(done.files) == {name for name in version.files if "/" not in name} | {"Modelfile"}
    for name in done.files.keys() - {"Modelfile"}:
        assert (tmp_path / "out" / name).read_bytes() == (folder_of(layout) / name).read_bytes()
        assert done.files[name] == version.files[name].blake3
    assert done.commands[0] == f"vllm serve {tmp_path / 'out'} --served-model-name 'my model'"
    assert os.access(tmp_path / "out" / "config.json", os.W_OK), "what was exported is the user's own"
    require_nothing_left(tmp_path, but={"w", "out"})


def test_the_adapter_alone_goes_into_an_empty_folder(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = exporting.export_version(layout, "v001", to=tmp_path / "out", format=Format.ADAPTER)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in os.listdir(tmp_path / "out")} == ADAPTER
    assert done.modelfile is None
    assert "--enable-lora" in done.commands[0]


def test_the_modelfile_speaks_chatml_where_the_template_does_and_else_leaves_it_to_the_file(
    layout: Layout, tmp_path: Path
) -> None:
    done = exporting.export_version(layout, "v001", to=tmp_path / "out", format=Format.HF)
    assert done.modelfile is not None
    lines = done.modelfile.splitlines()
    assert lines[0] == "FROM ."
    assert lines[1].startswith('TEMPLATE """{{- range .Messages }}<|im_start|>')
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER num_ctx 4096" in lines
    other = tmp_path / "other"
    shutil.copytree(layout.base / "tiny", other)
    (other / "chat_template.jinja").write_text("{% for one in messages %}{{ one.content }}{% endfor %}")
    assert 'TEMPLATE "' not in exporting._modelfile(other, "m.gguf")


def test_a_folder_with_something_in_it_and_one_of_the_workspace_are_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(layout.inbox)
    for place in ("full", "file", "link", "link/inside", "w/models/v002", "w/inbox/x", "w/models"):
        with pytest.raises(UsageError) as refused:
            exporting.export_version(layout, "v001", to=tmp_path / place, format=Format.HF)
        assert refused.value.code in ("target_in_way", "target_inside"), place
    assert os.listdir(tmp_path / "full") == ["mine"]
    require_nothing_left(tmp_path, but={"w", "full", "file", "link"})


@pytest.mark.parametrize("format", list(Format))
def test_a_version_with_one_bit_flipped_is_never_exported(layout: Layout, tmp_path: Path, format: Format) -> None:
    path = folder_of(layout) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    with pytest.raises(FailedError) as refused:
        exporting.export_version(layout, "v001", to=tmp_path / "out", format=format)
    assert refused.value.code == "damaged_version"
    require_nothing_left(tmp_path)


def test_a_fully_trained_version_has_no_adapter(layout: Layout, tmp_path: Path) -> None:
    staging = versions.make_staging(layout, "v002")
    for path in (layout.base / "tiny").iterdir():
        files.copy_durably(path, staging / path.name)
    versions.seal(staging, dataclasses.replace(VERSION, id="v002", method="full", kind="full"))
    sealed.unseal_folders(staging)
    files.rename_durably(staging, layout.versions / "v002")
    with pytest.raises(UsageError) as refused:
        exporting.export_version(layout, "v002", to=tmp_path / "out", format=Format.ADAPTER)
    assert refused.value.code == "no_adapter"
    require_nothing_left(tmp_path)


def test_a_full_disk_leaves_nothing(layout: Layout, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=5", "tmpfs", str(disk)], check=False
    ).returncode:
        pytest.skip("mounting a small tmpfs needs rights that are missing here")
    try:
        with pytest.raises(DiskError) as refused:  # the bytes would fit, the names do not
            exporting.export_version(layout, "v001", to=disk / "out", format=Format.HF)
        assert refused.value.code == errno.errorcode[errno.ENOSPC]
        assert os.listdir(disk) == []
        with open(disk / "filler", "wb") as file, contextlib.suppress(OSError):
            file.write(bytes(9 << 20))
        with pytest.raises(DiskError) as refused:
            exporting.export_version(layout, "v001", to=disk / "out", format=Format.HF)
        assert refused.value.code == "no_space"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_gguf_is_one_file_with_the_template_byte_for_byte_and_a_modelfile(layout: Layout, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    done = exporting.export_version(layout, "v001", to=tmp_path / "out", format=Format.GGUF)
    assert set(done.files) == {"my-model-v001.gguf", "Modelfile"}
    reader = gguf.GGUFReader(tmp_path / "out" / "my-model-v001.gguf")
    template = bytes(reader.fields["tokenizer.chat_template"].parts[-1])
    assert template == (folder_of(layout) / "chat_template.jinja").read_bytes()
    assert len(reader.tensors) == 21
    assert done.modelfile is not None
    assert done.modelfile.startswith("FROM ./my-model-v001.gguf\n")


def test_a_model_that_gguf_cannot_hold_exactly_is_refused_in_words(layout: Layout, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    staging = versions.make_staging(layout, "v002")
    for path in (layout.base / "tiny").iterdir():
        files.copy_durably(path, staging / path.name)
    config = files.read_json(staging / "config.json")
    files.write_json_durably(staging / "config.json", {**config, "architectures": ["Qwen2ForCausalLM"]})
    versions.seal(staging, dataclasses.replace(VERSION, id="v002"))
    sealed.unseal_folders(staging)
    files.rename_durably(staging, layout.versions / "v002")
    with pytest.raises(OvernightError, match=r"architecture Qwen2ForCausalLM[\s\S]*LlamaForCausalLM") as refused:
        exporting.export_version(layout, "v002", to=tmp_path / "out", format=Format.GGUF)
    assert refused.value.exit_code == 78
    require_nothing_left(tmp_path)


def test_names_with_signs_of_the_shell_are_quoted() -> None:
    [command] = how_to_use(Format.ADAPTER, "/a b", model_name="it's", source="", base_model="/base")
    assert command == "vllm serve /base --enable-lora --lora-modules 'it'\\''s'='/a b'"
